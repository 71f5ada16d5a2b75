"""Writes Megatron-LM's indexed datasets: a pair that is whole, or not there."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sparselogits.durable import io_error, make_directory, sync_directory
from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens import megatron_layout as layout

_LONGEST = np.iinfo(np.int32).max


def megatron_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest dtype that the layout has for ids below `vocab_size`: uint16, int32 or int64."""
    names = ("<u2", "<i4", "<i8")
    return next(np.dtype(n) for n in names if vocab_size - 1 <= int(np.iinfo(n).max))


class MegatronWriter:
    """Writes documents to PREFIX.bin and PREFIX.idx, each document one sequence.

    Use it in a `with`. Both files are written under temporary names and renamed, the `.idx` last,
    when the block ends without an error; otherwise nothing remains.

    Args:
        prefix: The common path of both files, without suffix.
        dtype: Of the tokens: uint8, int8, int16, int32, int64 or uint16.

    Raises:
        InvalidArgumentError: The layout has no such dtype; one of the files exists.
        CacheIOError: The system refused.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        codes = {known: code for code, known in layout.DTYPES.items()}
        if self._dtype not in codes:
            raise InvalidArgumentError(
                f"dtype must be one of {', '.join(known.name for known in codes)}: the layout has "
                f"no {self._dtype.name}"
            )
        self._code = codes[self._dtype]
        self._paths = _pair_of_prefix(os.fspath(prefix))
        self._temporary = [
            path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in self._paths
        ]
        self._lengths: list[npt.NDArray[np.int32]] = []
        self._file: BinaryIO | None = None
        self.num_documents = 0
        self.num_tokens = 0

    def __enter__(self) -> MegatronWriter:
        for path in self._paths:
            if os.path.lexists(path):
                raise InvalidArgumentError(f"{path} exists: choose another prefix")
        make_directory(self._paths[0].parent)
        try:
            self._file = self._temporary[0].open("wb")
        except OSError as error:
            raise io_error(error, "cannot write", self._temporary[0]) from error
        return self

    def append(self, tokens: npt.ArrayLike, lengths: npt.ArrayLike | None = None) -> None:
        """Writes documents.

        Args:
            tokens: (T,) ids, of one document or of several end to end.
            lengths: (D,) tokens of each; None: one document.

        Raises:
            InvalidArgumentError: An id does not fit the dtype, a length is negative or above
                2^31 - 1, or the lengths are not those of `tokens`.
            CacheIOError: The system refused.
        """
        assert self._file is not None, "append outside `with`"
        ids = np.asarray(tokens)
        sizes = np.array([len(ids)] if lengths is None else lengths, np.int64)
        limits = np.iinfo(self._dtype)
        if ids.size and not limits.min <= ids.min() <= ids.max() <= limits.max:
            wrong = ids.min() if ids.min() < limits.min else ids.max()
            raise InvalidArgumentError(f"token id {wrong} does not fit {self._dtype.name}")
        if sizes.size and not 0 <= sizes.min() <= sizes.max() <= _LONGEST:
            wrong = sizes.min() if sizes.min() < 0 else sizes.max()
            raise InvalidArgumentError(f"a document of {wrong} tokens is outside [0, {_LONGEST}]")
        if sizes.sum() != len(ids):
            raise InvalidArgumentError(f"lengths add up to {sizes.sum()}, not to {len(ids)} tokens")
        try:
            self._file.write(ids.astype(self._dtype).data)
        except OSError as error:
            raise io_error(error, "cannot write", self._temporary[0]) from error
        self._lengths.append(sizes.astype("<i4"))
        self.num_documents += len(sizes)
        self.num_tokens += len(ids)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        try:
            if kind is None:
                _sync(self._file)
                self._write_index()
                for temporary, path in zip(self._temporary, self._paths, strict=True):
                    temporary.replace(path)
                sync_directory(self._paths[0].parent)
        except OSError as failure:
            raise io_error(failure, "cannot write", self._paths[0]) from failure
        finally:
            self._file.close()
            for temporary in self._temporary:
                with suppress(OSError):  # renamed, or the first error is the one to report
                    temporary.unlink()

    def _write_index(self) -> None:
        lengths = np.concatenate([np.empty(0, "<i4"), *self._lengths])
        pointers = np.zeros(len(lengths) + 1, "<i8")
        np.cumsum(lengths, dtype=np.int64, out=pointers[1:])
        with self._temporary[1].open("wb") as file:
            file.write(layout.MAGIC)
            file.write(
                struct.pack("<QBQQ", layout.VERSION, self._code, len(lengths), len(lengths) + 1)
            )
            file.write(lengths.astype("<i4").data)
            file.write((pointers[:-1] * self._dtype.itemsize).data)
            file.write(np.arange(len(lengths) + 1, dtype="<i8").data)
            _sync(file)


def _pair_of_prefix(prefix: str) -> tuple[Path, Path]:
    if not prefix or prefix.endswith(("/", ".", ".bin", ".idx")):
        raise InvalidArgumentError(
            f"{prefix!r} must be a prefix of file names, without .bin or .idx, and no directory"
        )
    return layout.pair_of(prefix)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
