"""Reads and checks the `.idx` of a Megatron-LM indexed dataset."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.durable import io_error
from sparselogits.errors import CorruptionError, TruncatedError, UnsupportedError
from sparselogits.tokens import megatron_layout as layout

_CHUNK = 1 << 20  # sequences that are checked at once


@dataclass(frozen=True)
class MegatronIndex:
    """The three tables of an `.idx`, mapped.

    Attributes:
        path: The file.
        dtype: Of the tokens in the `.bin`.
        lengths: Tokens of each sequence, (num_sequences,) int32.
        pointers: Where each sequence starts in the `.bin`, bytes, (num_sequences,) int64.
        documents: The first sequence of each document and, last, num_sequences, int64.
    """

    path: Path
    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]

    @classmethod
    def read(cls, path: Path) -> MegatronIndex:
        """Opens an `.idx`; checks the header and that the tables fit the file exactly.

        Raises:
            TruncatedError, CorruptionError, UnsupportedError: The message names file, byte, field
                and value.
            CacheIOError: The file cannot be read.
        """
        try:
            with path.open("rb") as file:
                header = file.read(layout.HEADER_BYTES)
                size = file.seek(0, 2)
        except OSError as error:
            raise io_error(error, "cannot read", path) from error
        dtype, num_sequences, num_documents = _parse_header(str(path), header)
        starts = _table_starts(num_sequences, num_documents)
        _check_size(str(path), size, starts, num_sequences)

        def table(start: int, dtype: str, count: int) -> Any:
            return np.memmap(path, dtype, "r", start, (count,)) if count else np.empty(0, dtype)

        return cls(
            path,
            dtype,
            table(starts["sequence_lengths"], "<i4", num_sequences),
            table(starts["sequence_pointers"], "<i8", num_sequences),
            table(starts["document_indices"], "<i8", num_documents),
        )

    def check(self, bin_path: Path, bin_size: int) -> bool:
        """Holds every entry of the tables against the `.bin`, a piece of the tables at a time.

        Returns:
            Whether the sequences lie end to end in the `.bin`, in order.

        Raises:
            CorruptionError: A length, pointer or document index is wrong.
            TruncatedError: A sequence ends behind the end of the `.bin`.
        """
        self._check_documents()
        contiguous = True
        end: int | None = None
        for start in range(0, len(self.lengths), _CHUNK):
            lengths = self.lengths[start : start + _CHUNK].astype(np.int64)
            pointers = np.asarray(self.pointers[start : start + _CHUNK])
            self._refuse(start, lengths < 0, lengths, "sequence_lengths", "is below 0")
            nbytes = lengths * self.dtype.itemsize
            self._refuse(start, pointers < 0, pointers, "sequence_pointers", "is below 0")
            self._refuse(
                start,
                pointers % self.dtype.itemsize != 0,
                pointers,
                "sequence_pointers",
                f"is no multiple of {self.dtype.itemsize}, the bytes of a token",
            )
            beyond = pointers > bin_size - nbytes  # not pointers + nbytes: that may overflow
            if beyond.any():
                where = int(beyond.argmax())
                raise TruncatedError(
                    f"has {bin_size} bytes, but sequence {start + where} of {self.path} has "
                    f"{lengths[where]} tokens of {self.dtype.itemsize} bytes from byte "
                    f"{pointers[where]}",
                    str(bin_path),
                    bin_size,
                    "tokens",
                )
            ends = pointers + nbytes
            follows = (pointers[1:] == ends[:-1]).all() and end in (None, int(pointers[0]))
            contiguous = contiguous and bool(follows)
            end = int(ends[-1])
        return contiguous

    def _check_documents(self) -> None:
        field, num_sequences = "document_indices", len(self.lengths)
        for start in range(0, len(self.documents), _CHUNK):
            indices = np.asarray(self.documents[start : start + _CHUNK + 1])
            falls = np.zeros(len(indices), bool)
            falls[1:] = indices[1:] < indices[:-1]
            self._refuse(start, indices < 0, indices, field, "is below 0")
            text = f"is above the number of sequences, {num_sequences}"
            self._refuse(start, indices > num_sequences, indices, field, text)
            self._refuse(start, falls, indices, field, "is below the one before it")
        for place, wanted in ((0, 0), (len(self.documents) - 1, num_sequences)):
            indices = np.asarray(self.documents[place : place + 1])
            self._refuse(place, indices != wanted, indices, field, f"must be {wanted}")

    def _refuse(
        self,
        start: int,
        wrong: npt.NDArray[np.bool_],
        values: npt.NDArray[Any],
        field: str,
        complaint: str,
    ) -> None:
        """Raises for the first wrong entry of a piece of a table that begins at `start`."""
        if not wrong.any():
            return
        where = int(wrong.argmax())
        offset = _table_starts(len(self.lengths), len(self.documents))[field]
        offset += (start + where) * (layout.LENGTH_BYTES if field == "sequence_lengths" else 8)
        raise CorruptionError(
            f"entry {start + where} is {values[where]}, which {complaint}",
            str(self.path),
            offset,
            field,
        )


def _parse_header(path: str, header: bytes) -> tuple[np.dtype[Any], int, int]:
    """dtype, number of sequences and of document indices."""
    if header[: len(layout.MAGIC)] != layout.MAGIC[: len(header)]:
        raise CorruptionError(
            f"begins with {header[: len(layout.MAGIC)]!r}, not with {layout.MAGIC!r}: no "
            "Megatron-LM index",
            path,
            0,
            "magic",
        )
    if len(header) < layout.HEADER_BYTES:
        raise TruncatedError(
            f"has {len(header)} bytes, a header has {layout.HEADER_BYTES}",
            path,
            len(header),
            "header",
        )
    version, code, num_sequences, num_documents = struct.unpack_from(
        "<QBQQ", header, layout.VERSION_OFFSET
    )
    if version != layout.VERSION:
        raise UnsupportedError(
            f"is {version}, known is {layout.VERSION}", path, layout.VERSION_OFFSET, "version"
        )
    if code in layout.OTHER_DTYPES:
        text = f"is {code}, {layout.OTHER_DTYPES[code]}: token ids are integers"
        raise UnsupportedError(text, path, layout.DTYPE_OFFSET, "dtype_code")
    if code not in layout.DTYPES:
        text = f"is {code}, known are {', '.join(map(str, sorted(layout.DTYPES)))}"
        raise UnsupportedError(text, path, layout.DTYPE_OFFSET, "dtype_code")
    if num_documents < 1:
        raise CorruptionError(
            "is 0, but one index more than documents is stored",
            path,
            layout.DOCUMENTS_OFFSET,
            "document_count",
        )
    return layout.DTYPES[code], num_sequences, num_documents


def _table_starts(num_sequences: int, num_documents: int) -> dict[str, int]:
    """Where the tables begin, and under "end" where the last one ends."""
    pointers = layout.HEADER_BYTES + num_sequences * layout.LENGTH_BYTES
    documents = pointers + num_sequences * layout.POINTER_BYTES
    return {
        "sequence_lengths": layout.HEADER_BYTES,
        "sequence_pointers": pointers,
        "document_indices": documents,
        "end": documents + num_documents * layout.DOCUMENT_BYTES,
    }


def _check_size(path: str, size: int, starts: dict[str, int], num_sequences: int) -> None:
    end = starts["end"]
    if size < end:
        field = [name for name, start in starts.items() if start <= size][-1]
        raise TruncatedError(f"has {size} bytes, the tables end at {end}", path, size, field)
    if size == end + num_sequences and num_sequences:
        raise UnsupportedError(
            "has a mode for each sequence: a multimodal dataset", path, end, "sequence_modes"
        )
    if size > end:
        raise CorruptionError(f"has {size} bytes, the tables end at {end}", path, end, "end")
