"""Where a cache is made before it appears under its name, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from sparselogits.directory import DirectoryLock
from sparselogits.durable import io_error, make_directory, sync_directory
from sparselogits.errors import CacheIOError, InvalidArgumentError


def check_target(target: Path, sources: Iterable[Path] = ()) -> None:
    """Refuses a place where a new cache cannot appear.

    Raises:
        InvalidArgumentError: Something is there, or it is inside one of `sources`.
        CacheIOError: The system does not let one look.
    """
    real = target.parent.resolve() / target.name
    for source in sources:
        if source.resolve() in (real, *real.parents):
            raise InvalidArgumentError(f"{target} is inside {source}: choose another directory")
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise InvalidArgumentError(f"{target} is not a directory: choose another name")
        if target.is_dir() and any(target.iterdir()):
            raise InvalidArgumentError(f"{target} is not empty: choose another directory")
    except OSError as error:
        raise io_error(error, "cannot look into the directory", target) from error


class Staging:
    """A hidden directory beside the target, for one process at a time. A context manager.

    It holds the growing cache, `cache`, and what its maker notes beside it. `publish` renames the
    cache to the target. What is there when the context is left otherwise stays for the next call.

    Args:
        target: The cache to make; missing, or an empty directory.
        purpose: "merging" or "repacking": names the directory `.NAME.PURPOSE`.

    Raises:
        InvalidArgumentError: The target appeared meanwhile.
        CacheIOError: Another process is making the same cache, or the system refused.
    """

    def __init__(self, target: Path, purpose: str) -> None:
        self.target = target
        self.directory = target.with_name(f".{target.name}.{purpose}")
        self.cache = self.directory / "cache"
        self._purpose = purpose

    def __enter__(self) -> Staging:
        make_directory(self.directory)
        try:
            made = self.directory.stat()
            self._lock = DirectoryLock(self.directory)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.ENOENT):
                raise self._busy() from error
            raise
        try:
            if not self._is(made):
                raise self._busy()
            check_target(self.target)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def discard(self) -> None:
        """Removes everything that is in the directory.

        Raises:
            CacheIOError: The system refused.
        """
        try:
            for path in self.directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        except OSError as error:
            raise io_error(error, "cannot clear", self.directory) from error

    def publish(self) -> None:
        """The cache appears under its name, durably.

        Raises:
            CacheIOError: It does not: something is there, or the system refused.
        """
        try:
            self.cache.rename(self.target)
            sync_directory(self.target.parent)
        except OSError as error:
            raise io_error(error, "cannot rename the finished cache to", self.target) from error
        with contextlib.suppress(CacheIOError):
            self.discard()

    def _is(self, made: os.stat_result) -> bool:
        """Whether it is still that directory, which the one who held its lock may have removed."""
        try:
            return os.path.samestat(made, self.directory.stat())
        except FileNotFoundError:
            return False

    def _leave(self) -> None:
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # where nothing is in it
        self._lock.release()

    def _busy(self) -> CacheIOError:
        return CacheIOError(
            errno.EWOULDBLOCK,
            f"another call is {self._purpose} into {self.target}, in this or another process",
            str(self.directory),
        )
