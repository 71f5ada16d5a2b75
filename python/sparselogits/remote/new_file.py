"""`NewFile`: a shard while it is fetched; and who is fetching one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from pathlib import Path

from sparselogits.distributed.file_lock import FileLock
from sparselogits.durable import io_error

# A process that has written nothing for so long is taken for one that hangs.
_STALLED_SECONDS = 300.0


class NewFile:
    """A file that nobody uses before it is whole: it gets its name then.

    It has its full length from the start, so that who adds up a directory counts it. It is locked
    until it is published or discarded; the system drops the lock of a process that dies.

    Args:
        directory: Where it lies meanwhile, on the file system of its final place.
        key: The start of its name there.
        size: Bytes.

    Raises:
        CacheIOError: It cannot be made, or the file system cannot lock it.
    """

    def __init__(self, directory: Path, key: str, size: int) -> None:
        self.path = directory / f"{key}.{os.getpid()}-{secrets.token_hex(4)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise io_error(error, "cannot make room for a shard", self.path) from error
        self._lock = FileLock(self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self.discard()
            raise io_error(error, "cannot make room for a shard", self.path) from error

    def write(self, data: bytes, offset: int) -> None:
        """Puts bytes in their place.

        Raises:
            CacheIOError: The system refused, for example because the disk is full.
        """
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            raise io_error(error, "cannot write", self.path) from error

    def publish(self, target: Path) -> None:
        """Gives the file its name, after its bytes are on the disk: a name means a whole file.

        The name itself may be lost in a crash of the machine; then the shard is fetched again.

        Raises:
            CacheIOError: The system refused.
        """
        try:
            os.fsync(self._descriptor)
            self.path.rename(target)
        except OSError as error:
            raise io_error(error, "cannot finish", self.path) from error
        self._lock.release()

    def discard(self) -> None:
        """Removes what has not been published."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._lock.release()


def is_being_written(path: Path) -> bool:
    """Whether a process that lives, and goes on, has this file as a `NewFile`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise io_error(error, "cannot look at", path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return time.time() - os.fstat(descriptor).st_mtime < _STALLED_SECONDS
    finally:
        os.close(descriptor)
    return False
