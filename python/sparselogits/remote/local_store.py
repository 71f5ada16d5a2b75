"""`LocalStore`: a directory of fetched shards that keeps to a number of bytes."""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from sparselogits.distributed.file_lock import FileLock
from sparselogits.durable import io_error
from sparselogits.errors import CacheIOError
from sparselogits.remote.held_files import held_files
from sparselogits.remote.new_file import NewFile, is_being_written

_POLL_SECONDS = 0.02
_DIGEST = re.compile(r"[0-9a-f]{64}")


class NoRoomError(Exception):
    """There is no room for a shard that nobody waits for."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: int  # when it was last used, nanoseconds


class LocalStore:
    """Shards of any number of remote caches, shared by any number of processes.

    A cache has the folder DIGEST: its shards are in `shards` under their own names, and in
    `fetching` while they come. So what another cache, or a changed one, has is never mixed up with
    it. Whoever makes room holds the file `lock`, lists everything, removes the shards that were
    used longest ago, and makes the new file in its full length before it lets go: the files never
    add up to more than the limit. What a process maps outlives its removal.

    Args:
        root: The directory; made if it is not there.
        max_bytes: What all shards in it may add up to.

    Raises:
        CacheIOError: It cannot be made.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self.held = held_files(root)

    def folder(self, digest: str) -> Path:
        """The folder of the cache with this digest.

        Raises:
            CacheIOError: It cannot be made.
        """
        folder = self.root / digest
        try:
            for part in ("shards", "fetching"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise io_error(error, "cannot make the local cache", folder) from error
        return folder

    def new_file(self, digest: str, key: str, size: int) -> NewFile:
        """A file to write that is no shard, and is not counted once it has its name.

        Raises:
            CacheIOError: The system refused.
        """
        with self._exclusively():  # before it is locked, it looks like one of the dead
            return NewFile(self.folder(digest) / "fetching", key, size)

    def claim(self, target: Path, key: str, size: int, *, needed: bool) -> NewFile | None:
        """The right and the room to fetch a shard.

        Waits where another process fetches it, or has taken the room; a process that died or hangs
        is waited for no longer.

        Args:
            target: Its place.
            key: What no other shard of that cache has, for the name meanwhile.
            size: Bytes.
            needed: Somebody waits for it. Otherwise nothing is removed for it that was itself
                fetched ahead and not used yet, and there is no waiting.

        Returns:
            The file to write; None where the shard is there, or comes without our help.

        Raises:
            NoRoomError: It is not needed, and there is no room.
            CacheIOError: The shard alone is above the limit, or the system refused.
        """
        if size > self.max_bytes:
            raise CacheIOError(
                f"{target.name} has {size} bytes, and local_cache_bytes is {self.max_bytes}: "
                "raise it, or write smaller shards (shard_bytes)"
            )
        while True:
            with self._exclusively():
                shards, coming = self._list()
                if target in shards:
                    return None
                fetching = target.parent.parent / "fetching"
                if not any(e.path.parent == fetching and _key(e.path) == key for e in coming):
                    if self._make_room(shards, coming, size, needed=needed):
                        return NewFile(fetching, key, size)
                    if not needed:
                        raise NoRoomError
                elif not needed:
                    return None
            time.sleep(_POLL_SECONDS)

    def _exclusively(self) -> FileLock:
        lock = FileLock.acquire(self.root / "lock", wait=True)
        assert lock is not None
        return lock

    def _list(self) -> tuple[dict[Path, _Entry], list[_Entry]]:
        """Shards that are there, and those that are coming; what the dead have left is removed."""
        shards: dict[Path, _Entry] = {}
        coming = []
        try:
            for folder in os.scandir(self.root):
                if not _DIGEST.fullmatch(folder.name):
                    continue
                # In this order, because a file moves on without the lock: better seen twice.
                for entry in _entries(Path(folder.path) / "fetching"):
                    if is_being_written(entry.path):
                        coming.append(entry)
                    else:
                        entry.path.unlink(missing_ok=True)
                for entry in _entries(Path(folder.path) / "shards"):
                    shards[entry.path] = entry
        except OSError as error:
            if isinstance(error, CacheIOError):
                raise
            raise io_error(error, "cannot read the local cache", self.root) from error
        return shards, coming

    def _make_room(
        self, shards: dict[Path, _Entry], coming: list[_Entry], size: int, *, needed: bool
    ) -> bool:
        excess = sum(e.size for e in (*shards.values(), *coming)) + size - self.max_bytes
        with self.held.lock:
            spared = [
                entry
                for entry in shards.values()
                if not self.held.is_held(entry.path)
                and (needed or not self.held.is_expected(entry.path))
            ]
            if sum(entry.size for entry in spared) < excess:
                return False  # removing some would be in vain
            spared.sort(key=lambda entry: (self.held.is_expected(entry.path), entry.used))
            for entry in spared:
                if excess <= 0:
                    break
                try:
                    entry.path.unlink(missing_ok=True)
                except OSError as error:
                    raise io_error(error, "cannot remove", entry.path) from error
                self.held.removed(entry.path)
                excess -= entry.size
        return True


def mark_used(path: Path) -> bool:
    """Notes that a shard is used now; False where it is not there."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:  # someone else's file: it may be read, and goes a little early
        return path.exists()
    return True


def _entries(folder: Path) -> list[_Entry]:
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                found.append(_Entry(Path(entry.path), info.st_size, info.st_mtime_ns))
    return found


def _key(path: Path) -> str:
    return path.name.rsplit(".", 1)[0]
