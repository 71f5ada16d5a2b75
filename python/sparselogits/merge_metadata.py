"""The facts that caches of one teacher share, and those of the cache made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparselogits.agreement import TEACHER_KEYS
from sparselogits.errors import MismatchError
from sparselogits.manifest import Manifest, check_metadata


def merged_metadata(
    caches: Sequence[tuple[Path, Manifest]], given: Mapping[str, str]
) -> dict[str, str]:
    """What all caches say, with the caller's facts over it.

    Args:
        caches: One or more; errors name their directories.
        given: The caller's facts. They settle what the caches disagree on, except the teacher.

    Raises:
        MismatchError: Caches differ in a fact that is not given, or in their teacher; or a fact
            given names another teacher. Names the key, both values and both caches.
        InvalidArgumentError: Together the facts are above the limit.
    """
    first_directory, first = caches[0]
    for directory, manifest in caches[1:]:
        for key in _teacher_first(first.metadata.keys() | manifest.metadata.keys()):
            held, other = first.metadata.get(key), manifest.metadata.get(key)
            if held == other or (key in given and key not in TEACHER_KEYS):
                continue
            raise MismatchError(
                f"{directory}: metadata[{key!r}] of {first_directory} is {held!r}, not {other!r}"
                + _advice(key)
            )
    for key in TEACHER_KEYS:
        held = first.metadata.get(key)
        if held is not None and given.get(key, held) != held:
            raise MismatchError(
                f"metadata[{key!r}] of {first_directory} is {held!r}, not {given[key]!r}"
                + _advice(key)
            )
    return check_metadata({**first.metadata, **given})


def _teacher_first(keys: set[str]) -> list[str]:
    return sorted(keys, key=lambda key: (key not in TEACHER_KEYS, key))


def _advice(key: str) -> str:
    if key in TEACHER_KEYS:
        return ": samples of different teachers do not go into one cache"
    return ": give the value of the new cache in metadata= (--metadata)"
