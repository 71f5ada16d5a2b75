"""`FilesToVerify`: where the deep check finds the files of a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from sparselogits.directory import list_directory
from sparselogits.errors import MismatchError
from sparselogits.manifest import MANIFEST_NAME, Manifest, read_manifest


@dataclass(frozen=True)
class FilesToVerify:
    """The manifest, just read, and the files that it names.

    Attributes:
        manifest: Of the cache.
        manifest_path: For errors.
        model_directory: Where the models lie.
        shard_directory: Where shards lie while they are held.
        hold: Makes shards of these numbers lie there until it is left.
        renew: Replaces a held shard by another copy; False where there is none, or no need.
        unlisted: Names of shards that lie there too, but not in the manifest.
    """

    manifest: Manifest
    manifest_path: str
    model_directory: Path
    shard_directory: Path
    hold: Callable[[Sequence[int]], AbstractContextManager[object]]
    renew: Callable[[int], bool]
    unlisted: Callable[[], tuple[str, ...]]


def files_in(directory: Path, digest: str | None = None) -> FilesToVerify:
    """The files of a cache in a directory.

    Args:
        directory: Of the cache.
        digest: Of a manifest read before, which must still be the same.

    Raises:
        CacheIOError: There is no manifest.
        FormatError: It is damaged.
        MismatchError: It has changed.
    """
    manifest = read_manifest(directory)
    check_unchanged(str(directory), manifest, digest)
    listed = {row.file for row in manifest.shards}

    def unlisted() -> tuple[str, ...]:
        listing = list_directory(directory)
        found = (path.name for path in (*listing.sealed, *listing.partials))
        return tuple(name for name in found if name not in listed)

    return FilesToVerify(
        manifest,
        str(directory / MANIFEST_NAME),
        directory,
        directory,
        hold=lambda _: nullcontext(),
        renew=lambda _: False,
        unlisted=unlisted,
    )


def check_unchanged(name: str, manifest: Manifest, digest: str | None) -> None:
    """Refuses a manifest that is not the one that was read when the cache was opened.

    Raises:
        MismatchError: It has another digest.
    """
    if digest is not None and digest != manifest.digest:
        raise MismatchError(f"{name} has changed since it was opened")
