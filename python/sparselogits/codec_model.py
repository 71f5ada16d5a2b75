"""`CodecModel`: what the `compact` codec has learnt about a teacher, in one small file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sparselogits import _core
from sparselogits.config import CacheConfig
from sparselogits.durable import io_error, replace_file
from sparselogits.errors import (
    CacheIOError,
    CorruptionError,
    FormatError,
    InvalidArgumentError,
    MismatchError,
)
from sparselogits.limits import MAX_MODEL_BYTES


class CodecModel:
    """A model of the `compact` codec: from `sparselogits.train_model`, `load`, or `Cache.models`.

    It depends on the teacher and on how was sampled, not on the cache that it was trained on: one
    model can serve many writers. It never changes, compares by content and can be pickled.
    """

    def __init__(self, core: _core.CodecModel) -> None:
        self._core = core

    @staticmethod
    def load(path: str | os.PathLike[str]) -> CodecModel:
        """Reads a model from a file, which may hold anything: everything in it is checked.

        Raises:
            FormatError: It is no model, or a damaged one; names the file, the byte and the field.
            CacheIOError: It cannot be read, or is no regular file.
        """
        file = Path(os.fspath(path))
        if file.exists() and not file.is_file():  # opening a FIFO would wait for ever
            raise CacheIOError(f"{file}: must be a regular file")
        return CodecModel(parse_model(read_model_bytes(file), str(file)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model to a file, durably and as a whole; one that is there is replaced.

        Raises:
            CacheIOError: The system refused; a file that was there is untouched.
        """
        replace_file(Path(os.fspath(path)), self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of the model's file."""
        return self._core.to_bytes()

    @property
    def core(self) -> _core.CodecModel:
        """The same as the C++ core takes it."""
        return self._core

    @property
    def digest(self) -> str:
        """xxh64 of the file: 16 hex digits. Shards name their model by it."""
        return f"{self._core.digest:016x}"

    @property
    def file_name(self) -> str:
        """The name of its file in a cache: `model-<digest>.slm`."""
        return self._core.file_name

    @property
    def nbytes(self) -> int:
        """Length of its file."""
        return len(self.to_bytes())

    @property
    def num_classes(self) -> int:
        """Classes of positions that it tells apart; 1 where it has no contexts."""
        return self._core.num_classes

    @property
    def vocab_size(self) -> int:
        return self._core.vocab_size

    @property
    def rounds(self) -> int:
        return self._core.rounds

    @property
    def codes_tokens(self) -> bool:
        """Whether it can code input tokens too: a cache that stores them needs such a model."""
        return self._core.codes_tokens

    def check_fits(self, config: CacheConfig) -> None:
        """Refuses a configuration whose records the model was not trained for.

        Raises:
            MismatchError: Names the first field that differs.
        """
        field = self._core.field_that_differs(config.to_core())
        if field is None:
            return
        have = {
            "vocab_size": self.vocab_size,
            "rounds": self.rounds,
            "store_tokens": self.codes_tokens,
        }
        values = f": {have[field]}, not {getattr(config, field)}" if field in have else ""
        raise MismatchError(f"model {self.digest} was trained for another {field}{values}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CodecModel):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickled, (self.to_bytes(),)

    def __repr__(self) -> str:
        return (
            f"CodecModel({self.digest}, {self.nbytes} bytes, vocabulary of {self.vocab_size}, "
            f"{self.num_classes} classes{', tokens' if self.codes_tokens else ''})"
        )


def model_for(config: CacheConfig, model: Any) -> _core.CodecModel | None:
    """The model that a caller gives for a new cache: a `CodecModel`, the path of one, or None.

    Raises:
        InvalidArgumentError: It is something else, or the codec needs none.
        MismatchError: It was trained for other records; names the field.
        FormatError, CacheIOError: As for `CodecModel.load`.
    """
    if model is None:
        return None
    if config.codec != "compact":
        raise InvalidArgumentError(f"model must be None for codec {config.codec!r}")
    if isinstance(model, (str, os.PathLike)):
        model = CodecModel.load(model)
    if not isinstance(model, CodecModel):
        raise InvalidArgumentError(f"model must be a CodecModel or a path, got {model!r}")
    model.check_fits(config)
    return model.core


def read_model_bytes(path: Path) -> bytes:
    """The content of a model's file. REQUIRES: it is no FIFO or device.

    Raises:
        CacheIOError: It cannot be read.
        CorruptionError: It is longer than a model may be.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            data = file.read(MAX_MODEL_BYTES + 1) if length <= MAX_MODEL_BYTES else b""
    except OSError as error:
        raise io_error(error, "cannot read the model", path) from error
    if max(length, len(data)) > MAX_MODEL_BYTES:
        raise CorruptionError(
            f"is longer than {MAX_MODEL_BYTES} bytes: {length}", str(path), None, "header"
        )
    return data


def parse_model(data: bytes, path: str) -> _core.CodecModel:
    """The model in `data`; `path` is for errors.

    Raises:
        FormatError: `data` is no model; names the byte and the field.
    """
    try:
        return _core.CodecModel.parse(data)
    except FormatError as error:
        raise type(error)(error.message, path, error.offset, error.field) from None


def _unpickled(data: bytes) -> CodecModel:
    return CodecModel(_core.CodecModel.parse(data))
