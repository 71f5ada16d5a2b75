"""`RemoteFiles`: bytes of a remote cache's files, asked for again where that may help."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sparselogits.errors import CacheIOError
from sparselogits.remote.location import Location, described

MAX_ATTEMPTS = 5
FIRST_DELAY = 0.1  # seconds; doubles each time
_LONGEST_DELAY = 5.0

# Asking again changes nothing about these. Everything else may pass: connections that drop, 503s,
# timeouts have a class of their own in every library.
_FINAL = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    NotImplementedError,
    ImportError,
    TypeError,
)

T = TypeVar("T")


class _TooShort(Exception):
    """A body that ended early."""


class RemoteFiles:
    """The files of one folder, for one process; safe to use from several threads.

    Raises:
        InvalidArgumentError: A package that the URL needs is missing.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._filesystem, self._folder = location.connect()

    def forget_listings(self) -> None:
        """Drops what the file system remembers of sizes and names."""
        self._filesystem.invalidate_cache()

    def read_all(self, name: str, limit: int) -> bytes:
        """A whole small file; of one that is longer than `limit`, limit + 1 bytes.

        Raises:
            CacheIOError: As for `read`.
        """

        def read() -> bytes:
            with self._filesystem.open(self._path(name), "rb") as file:
                return bytes(file.read(limit + 1))

        return self._again_and_again(name, read)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start to stop (excluded) of a file.

        Raises:
            CacheIOError: The file is not there (ENOENT), or may not be read, or the last of
                `MAX_ATTEMPTS` attempts failed. Names the URL, the attempts and the cause.
        """

        def read() -> bytes:
            data = self._filesystem.cat_file(self._path(name), start=start, end=stop)
            if len(data) != stop - start:
                raise _TooShort(f"{len(data)} bytes came where {stop - start} were asked for")
            return bytes(data)

        return self._again_and_again(name, read)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _again_and_again(self, name: str, read: Callable[[], T]) -> T:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                return read()
            except Exception as error:
                if isinstance(error, _FINAL) or attempt == MAX_ATTEMPTS:
                    raise self._refusal(name, error, attempt) from error
            pause(attempt)
        raise AssertionError("unreachable")

    def _refusal(self, name: str, error: Exception, attempts: int) -> CacheIOError:
        number: Any = getattr(error, "errno", None)
        if isinstance(error, FileNotFoundError):
            number = errno.ENOENT
        cause = str(error) if isinstance(error, _TooShort) else described(error)
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        message = f"cannot fetch it ({times}): {cause}"
        code = number if isinstance(number, int) else errno.EIO
        return CacheIOError(code, message, self.location.file_url(name))


def pause(attempt: int) -> None:
    """Waits before the next attempt: exponentially longer, and not together with all others."""
    delay = min(FIRST_DELAY * 2.0 ** (attempt - 1), _LONGEST_DELAY)
    time.sleep(delay * random.uniform(0.5, 1.5))
