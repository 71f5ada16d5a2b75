"""A cache's directory: which files are its own, and who may write there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sparselogits import _core
from sparselogits.durable import io_error
from sparselogits.errors import InvalidArgumentError
from sparselogits.manifest import MANIFEST_NAME
from sparselogits.manifest_parser import MODEL_FILE

PARTIAL_SUFFIX = ".partial"

_SHARD = re.compile(r"shard-([0-9]{6,9})\.slc(\.partial)?")


@dataclass(frozen=True)
class DirectoryListing:
    """The files of a cache as they lie there.

    Attributes:
        has_manifest: Whether there is a manifest.
        sealed: Finished shards, in ascending order of their number.
        partials: Unfinished shards, likewise.
        models: Models of the compact codec, in ascending order of their names.
        next_number: The first number that no shard has or is above.
    """

    has_manifest: bool
    sealed: tuple[Path, ...]
    partials: tuple[Path, ...]
    next_number: int
    models: tuple[Path, ...]

    @property
    def is_unfinished(self) -> bool:
        """Whether there is something of a writer that never wrote its manifest."""
        return bool(self.partials) or (bool(self.sealed) and not self.has_manifest)


def list_directory(directory: Path) -> DirectoryListing:
    """Looks for a manifest, shards and models.

    Raises:
        CacheIOError: The directory cannot be read.
    """
    found: dict[bool, list[tuple[int, Path]]] = {False: [], True: []}
    models = []
    has_manifest = False
    try:
        for path in directory.iterdir():
            has_manifest |= path.name == MANIFEST_NAME
            if match := _SHARD.fullmatch(path.name):
                found[match[2] is not None].append((int(match[1]), path))
            elif MODEL_FILE.fullmatch(path.name):
                models.append(path)
    except OSError as error:
        raise io_error(error, "cannot read the cache directory", directory) from error
    numbers = [number for entries in found.values() for number, _ in entries]
    return DirectoryListing(
        has_manifest=has_manifest,
        sealed=tuple(path for _, path in sorted(found[False])),
        partials=tuple(path for _, path in sorted(found[True])),
        next_number=max(numbers, default=-1) + 1,
        models=tuple(sorted(models)),
    )


def shard_name(number: int) -> str:
    """The name of a finished shard."""
    return f"shard-{number:06d}.slc"


def local_directory(path: str | os.PathLike[str]) -> Path:
    """The absolute directory that a caller means.

    Raises:
        InvalidArgumentError: Not a path, or a URL.
    """
    try:
        text = os.fspath(path)
    except TypeError as error:
        raise InvalidArgumentError(f"path must be a str or os.PathLike, got {path!r}") from error
    if not isinstance(text, str):
        raise InvalidArgumentError(f"path must be a str or os.PathLike, got {path!r}")
    if "://" in text:
        raise InvalidArgumentError(f"path must be a local directory, got the URL {text!r}")
    if not text or "\0" in text:
        raise InvalidArgumentError(f"path must name a directory, got {text!r}")
    return Path(os.path.abspath(text))


class DirectoryLock:
    """Exclusive use of a cache's directory by one writer or one recovery.

    The system drops it when the process ends, however it ends. A forked child has no part in it.
    File systems that cannot lock a directory go without: there the lock on the unfinished shard is
    what keeps a second writer out. A context manager, which releases it.

    Raises:
        CacheIOError: Another writer or recovery has it.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = _core.DirectoryLock(str(directory))

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets others in. Idempotent."""
        self._lock.release()
