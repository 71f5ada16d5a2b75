"""What must hold for any bytes in the place of a manifest or of a shard's metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sparselogits.errors import FormatError
from sparselogits.manifest import parse_manifest
from sparselogits.manifest_parser import shard_metadata

PATH = "some/manifest.json"

T = TypeVar("T")


def check(data: bytes) -> None:
    """Refused with path and field, or understood: then written and read again it is the same."""
    metadata, fault = attempt(lambda: shard_metadata(PATH, data))
    assert fault is None or (fault.path, fault.field) == (PATH, "metadata")
    assert all(type(text) is str for pair in (metadata or {}).items() for text in pair)
    manifest, fault = attempt(lambda: parse_manifest(data, PATH))
    assert fault is None or (fault.path == PATH and fault.field)
    if manifest is not None:
        again = parse_manifest(manifest.to_bytes(), PATH)
        assert again == replace(manifest, digest=again.digest, num_bytes=again.num_bytes)


def attempt(parse: Callable[[], T]) -> tuple[T | None, FormatError | None]:
    """What `parse` returns, or the only kind of error that it may raise."""
    try:
        return parse(), None
    except FormatError as error:
        return None, error
