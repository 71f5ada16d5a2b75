"""The models of several caches as those of one: each once, by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparselogits import _core
from sparselogits.errors import MismatchError
from sparselogits.manifest import Manifest, ModelRow
from sparselogits.plain_file import plain_file


@dataclass(frozen=True)
class SourceModel:
    """A model where it lies.

    Attributes:
        row: As its manifest lists it, and the merged one will.
        path: The file itself, not a link to it inside the cache.
        sha256: Of its content, 64 hex digits.
    """

    row: ModelRow
    path: Path
    sha256: str


def merged_models(
    caches: Sequence[tuple[Path, Manifest]], models: Sequence[list[_core.CodecModel]]
) -> list[SourceModel]:
    """Every model of the caches, in ascending order of their names.

    Args:
        caches: The directory and the manifest of each.
        models: Those of each, loaded.

    Raises:
        MismatchError: Two different models have the same digest; names both.
        FormatError: One is a link out of its cache, or no file.
        CacheIOError: One is missing.
    """
    found: dict[str, SourceModel] = {}
    for (directory, _), loaded in zip(caches, models, strict=True):
        for model in loaded:
            data = model.to_bytes()
            path = plain_file(directory, model.file_name, "model").resolve()
            sha256 = hashlib.sha256(data).hexdigest()
            here = SourceModel(ModelRow(model.file_name, len(data)), path, sha256)
            other = found.setdefault(model.file_name, here)
            if other.sha256 != sha256:
                raise MismatchError(
                    f"{path} and {other.path} are different models of the same digest: repack one "
                    "of the caches"
                )
    return [found[name] for name in sorted(found)]
