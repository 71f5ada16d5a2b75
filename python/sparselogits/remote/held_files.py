"""`HeldFiles`: which files of a local directory this process uses, and which it will."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from sparselogits.errors import CacheIOError


class HeldFiles:
    """Of one directory, shared by all caches of this process that use it.

    `lock` guards everything here; it is held while files are removed, so that what was not held
    when it was chosen is not held when it goes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.lock = threading.RLock()
        self._freed = threading.Condition(self.lock)
        self._sizes: dict[Path, int] = {}  # of what is held
        self._holders: Counter[Path] = Counter()
        self._threads: Counter[int] = Counter()  # holds a thread has taken and not given back
        self._expected: dict[Path, None] = {}
        self.num_removed = 0  # files that this process has removed

    def is_held(self, path: Path) -> bool:
        return path in self._holders

    def num_holders(self, path: Path) -> int:
        """How many leases of this process hold a file."""
        return self._holders[path]

    def is_expected(self, path: Path) -> bool:
        """Whether it was fetched ahead and has not been used yet."""
        return path in self._expected

    def expect(self, path: Path) -> None:
        """Notes that a file is fetched ahead."""
        with self.lock:
            self._expected[path] = None

    def removed(self, path: Path) -> None:
        """Notes that a file is no longer there. REQUIRES: the lock."""
        self._expected.pop(path, None)
        self.num_removed += 1

    def forget(self, path: Path) -> None:
        """Takes back `expect`, where that was in vain."""
        with self.lock:
            self._expected.pop(path, None)

    def take(self, sizes: Mapping[Path, int], limit: int, *, wait: bool) -> int | None:
        """Holds files: all of them, or none. They need not be there yet.

        A thread that holds nothing waits until others have given back what is too much. One that
        holds something does not, or two of them could wait for each other.

        Args:
            sizes: Of the files, bytes.
            limit: What everything that this process holds in the directory may add up to, bytes.
            wait: Return None instead of waiting or raising, where others' holds are in the way.

        Returns:
            What `give` needs; None only without `wait`.

        Raises:
            CacheIOError: The files are more than the limit; names both.
        """
        wanted = sum(sizes.values())
        if wanted > limit:
            raise CacheIOError(
                f"{self._root}: the shards of this read have {wanted} bytes, and local_cache_bytes "
                f"is {limit}: raise it, read less at a time, or write smaller shards (shard_bytes)"
            )
        thread = threading.get_ident()
        with self.lock:
            while (total := sum({**self._sizes, **sizes}.values())) > limit:
                if not wait:
                    return None
                if self._threads[thread]:
                    raise CacheIOError(
                        f"{self._root}: with what this thread holds already, {total} bytes of "
                        f"shards would be held, and local_cache_bytes is {limit}: raise it, or "
                        "prefetch fewer batches"
                    )
                self._freed.wait()
            for path, size in sizes.items():
                self._sizes[path] = size
                self._holders[path] += 1
                self._expected.pop(path, None)
            self._threads[thread] += 1
        return thread

    def give(self, paths: Iterable[Path], thread: int) -> None:
        """Lets go of what `take` has given to a thread."""
        with self.lock:
            for path in paths:
                self._holders[path] -= 1
                if not self._holders[path]:
                    del self._holders[path], self._sizes[path]
            self._threads[thread] -= 1
            self._freed.notify_all()


_here: dict[Path, HeldFiles] = {}


def held_files(root: Path) -> HeldFiles:
    """Those of this process. A forked child has none: what its parent holds, its parent holds."""
    return _here.setdefault(root, HeldFiles(root))


os.register_at_fork(after_in_child=_here.clear)
