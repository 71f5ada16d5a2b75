"""The models of a cache: read, checked against their rows, and told apart by who needs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from sparselogits import _core
from sparselogits.codec_model import parse_model, read_model_bytes
from sparselogits.durable import replace_file
from sparselogits.errors import CacheIOError, CorruptionError, FormatError, SparseLogitsError
from sparselogits.manifest import Manifest, ModelRow, shard_path
from sparselogits.manifest_parser import MODEL_FILE
from sparselogits.plain_file import plain_file


def model_file(digest: int) -> str:
    """The name of a model's file in a cache."""
    return f"model-{digest:016x}.slm"


def model_digest(file: str) -> str:
    """The digest that a model's name states, 16 hex digits."""
    return file.removeprefix("model-").removesuffix(".slm")


def read_model(directory: Path, file: str) -> _core.CodecModel:
    """A model of a cache, whose name states its digest.

    Raises:
        FormatError: It is damaged, another one, or no regular file inside the cache.
        CacheIOError: It is missing or cannot be read.
    """
    path = plain_file(directory, file, "model")
    data = read_model_bytes(path)
    stated = model_digest(file)
    found = f"{_core.xxh64(data):016x}"
    if found != stated:
        raise CorruptionError(
            f"is {found}, not the one that the file is named by", str(path), None, "digest"
        )
    return parse_model(data, str(path))


def write_model(directory: Path, model: _core.CodecModel) -> ModelRow:
    """Stores a model in a cache, durably, unless it is there; returns its row."""
    data = model.to_bytes()
    path = directory / model.file_name
    if not (path.is_file() and not path.is_symlink() and path.read_bytes() == data):
        replace_file(path, data)
    return ModelRow(model.file_name, len(data))


class CacheModels:
    """The models that a cache's manifest names, the sound ones loaded.

    Attributes:
        loaded: Sound models, as the core takes them.
        rows: Of those, by name.
        faults: What is wrong with the others, by name.
    """

    def __init__(self) -> None:
        self.loaded: list[_core.CodecModel] = []
        self.rows: dict[str, ModelRow] = {}
        self.faults: dict[str, SparseLogitsError] = {}

    @classmethod
    def listed(cls, directory: Path, manifest: Manifest) -> CacheModels:
        """Those of a manifest, also held to the length that it states."""
        models = cls()
        for row in manifest.models:
            models._load(directory, row.file, row.bytes)
        return models

    @classmethod
    def named(cls, directory: Path, files: Iterable[str]) -> CacheModels:
        """Those of these names."""
        models = cls()
        for file in files:
            models._load(directory, file, None)
        return models

    def blamed(self, error: SparseLogitsError, shard: str) -> SparseLogitsError | None:
        """The fault of the model for the lack of which the core refused a shard, if that is why."""
        fault = self.faults.get(missing_model(error) or "")
        return None if fault is None else _needed_by(fault, shard)

    def _load(self, directory: Path, file: str, length: int | None) -> None:
        try:
            model = read_model(directory, file)
            found = len(model.to_bytes())
            if length not in (None, found):
                raise CorruptionError(
                    f"is {found}, but {length} in the manifest",
                    str(directory / file),
                    None,
                    "bytes",
                )
        except SparseLogitsError as error:
            self.faults[file] = error
            return
        self.loaded.append(model)
        self.rows[file] = ModelRow(file, found)


def sound_models(directory: Path, manifest: Manifest) -> list[_core.CodecModel]:
    """All models of a cache.

    Raises:
        FormatError, CacheIOError: One is damaged or missing; names the file and the first shard
            that needs it.
    """
    models = CacheModels.listed(directory, manifest)
    for file, error in models.faults.items():
        shard = _first_needing(directory, manifest, file)
        raise error if shard is None else _needed_by(error, shard)
    return models.loaded


def needed_model(shard: Path, models: list[_core.CodecModel]) -> str | None:
    """The name of the model that a finished shard names in its header; None for none.

    Args:
        shard: The file.
        models: Any. The refusal of a shard whose model is not among them tells it too.

    Raises:
        FormatError, CacheIOError: The shard is damaged, or cannot be read.
    """
    try:
        digest = _core.read_shard_info(str(shard), models)["model_digest"]
    except FormatError as error:
        missing = missing_model(error)
        if missing is None:
            raise
        return missing
    return model_file(digest) if digest else None


def missing_model(error: SparseLogitsError) -> str | None:
    """The name of the model that a shard needs, where the core refused it for lack of that."""
    if not isinstance(error, FormatError) or error.field != "model_digest":
        return None
    named = MODEL_FILE.search(error.message)
    return named[0] if named and "missing" in error.message else None


def _first_needing(directory: Path, manifest: Manifest, model: str) -> str | None:
    for row in manifest.shards:
        # What else is wrong with a shard is not what the caller is about to report.
        with contextlib.suppress(SparseLogitsError):
            if needed_model(shard_path(directory, row.file), []) == model:
                return row.file
    return None


def _needed_by(error: SparseLogitsError, shard: str) -> SparseLogitsError:
    if isinstance(error, FormatError):
        message = f"{error.message}; {shard} needs it"
        return type(error)(message, error.path, error.offset, error.field)
    if isinstance(error, CacheIOError) and error.errno is not None:
        return CacheIOError(error.errno, f"{error.strerror}; {shard} needs it", error.filename)
    return type(error)(f"{error}; {shard} needs it")
