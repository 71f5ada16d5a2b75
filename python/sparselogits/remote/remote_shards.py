"""`RemoteShards`: makes shards of one cache local, in one process, and keeps them while used."""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparselogits import _core
from sparselogits.durable import file_sha256
from sparselogits.errors import CacheIOError, FormatError, MismatchError
from sparselogits.limits import MAX_MANIFEST_BYTES
from sparselogits.manifest import MANIFEST_NAME, Manifest, manifest_digest, shard_path
from sparselogits.remote.fetch_shard import fetch_shard
from sparselogits.remote.fetch_threads import FetchJob, FetchThreads
from sparselogits.remote.local_store import LocalStore, NoRoomError, mark_used
from sparselogits.remote.remote_files import RemoteFiles

# A shard that is whole can be removed by another process before it is mapped, even repeatedly.
_MAX_REMOVALS = 100
_MAX_UNHELD_MAPS = 512
# How long what is mapped is taken for being there: looking costs more than a small read.
_LOOK_SECONDS = 1.0


class Lease:
    """Shards that are local and mapped until this is released. A context manager that does so."""

    def __init__(self, shards: RemoteShards, numbers: Sequence[int], thread: int) -> None:
        self._shards: RemoteShards | None = shards
        self._numbers = numbers
        self._thread = thread
        self._process = os.getpid()

    def release(self) -> None:
        """Idempotent. In a forked child it does nothing: the shards are its parent's."""
        shards, self._shards = self._shards, None
        if shards is not None and self._process == os.getpid():
            shards.give(self._numbers, self._thread)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class RemoteShards:
    """Of one open cache; safe to use from several threads, not after a fork.

    Args:
        files: Where the cache lies.
        manifest: Of the cache.
        store: Where its shards are kept.
        reader: The core's reader, which maps them.
        num_fetchers: Shards fetched at a time.
    """

    def __init__(
        self,
        files: RemoteFiles,
        manifest: Manifest,
        store: LocalStore,
        reader: _core.CacheReader,
        num_fetchers: int,
    ) -> None:
        self._files = files
        self._manifest = manifest
        self._store = store
        self._directory = store.folder(manifest.digest) / "shards"
        self._reader = reader
        self._threads = FetchThreads(num_fetchers)
        self._lock = threading.Lock()  # of what follows
        self._jobs: dict[int, FetchJob] = {}
        self._mapped: dict[int, float] = {}  # when each file was last seen; the latest used last
        self._looked = time.monotonic()
        self._removals = store.held.num_removed

    def hold(self, numbers: Sequence[int], *, wait: bool = True) -> Lease | None:
        """Makes shards local and maps them.

        Args:
            numbers: Of the shards, unique.
            wait: Else None is returned where there is no room before others release theirs.

        Raises:
            CacheIOError: They are together above the limit of the local cache, or one cannot be
                fetched.
            FormatError: What was fetched is not what the manifest means.
            MismatchError: The cache has changed since it was opened.
        """
        sizes = {self.path(i): self._manifest.shards[i].bytes for i in numbers}
        thread = self._store.held.take(sizes, self._store.max_bytes, wait=wait)
        if thread is None:
            return None
        lease = Lease(self, numbers, thread)
        try:
            jobs = {i: self._needed_job(i) for i in numbers if not self._is_mapped(i)}
            for i, job in jobs.items():
                job.result()
                while not self._is_mapped(i):  # the job was one that fetched ahead only
                    self._needed_job(i).result()
        except BaseException:
            lease.release()
            raise
        return lease

    def give(self, numbers: Sequence[int], thread: int) -> None:
        """For `Lease`."""
        self._store.held.give([self.path(i) for i in numbers], thread)
        with self._lock:
            self._unmap_what_nobody_needs()

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Has shards fetched soon, as far as there is room beside those that are in use or were
        fetched ahead as well. Errors are left to the read that needs the shard."""
        for i in numbers:
            path = self.path(i)
            with self._lock:
                if i in self._jobs or self._store.held.is_held(path):
                    continue
                self._store.held.expect(path)
                if not mark_used(path):
                    self._put(i, needed=False)

    def renew(self, number: int) -> bool:
        """Fetches a shard again whose local file is damaged or gone; False where it is not.

        REQUIRES: the caller holds it.
        """
        row, path = self._manifest.shards[number], self.path(number)
        try:
            if file_sha256(path) == row.sha256:
                return False
            path.unlink(missing_ok=True)
        except CacheIOError as error:
            if error.errno != errno.ENOENT:
                raise
        self._bring(number, FetchJob(lambda _: None, needed=True))
        return True

    def path(self, number: int) -> Path:
        """Where a shard lies while it is local."""
        return self._directory / self._manifest.shards[number].file

    def _is_mapped(self, number: int) -> bool:
        # REQUIRES: the caller holds it.
        now = time.monotonic()
        with self._lock:
            looked = self._mapped.pop(number, None)
            if looked is None:
                return False
            path = self.path(number)
            if now - looked < _LOOK_SECONDS and self._removals == self._store.held.num_removed:
                self._mapped[number] = looked
                return True
            self._mapped[number] = now
            if mark_used(path) or self._store.held.num_holders(path) > 1:
                return True
            # Another process has removed the file: what is mapped takes room that nobody counts.
            self._unmap(number)
            return False

    def _needed_job(self, number: int) -> FetchJob:
        with self._lock:
            job = self._jobs.get(number)
            if job is None:
                return self._put(number, needed=True)
            self._threads.need(job)
            return job

    def _put(self, number: int, *, needed: bool) -> FetchJob:
        # REQUIRES: the lock. The threads do not keep a cache alive that nobody has any more.
        this = weakref.ref(self)

        def work(job: FetchJob) -> None:
            shards = this()
            if shards is not None:
                shards._do(number, job)

        job = FetchJob(work, needed)
        self._jobs[number] = job
        self._threads.put(job)
        return job

    def _do(self, number: int, job: FetchJob) -> None:
        try:
            self._bring(number, job)
        finally:
            with self._lock:
                self._jobs.pop(number, None)

    def _bring(self, number: int, job: FetchJob) -> None:
        refetched = False
        for _ in range(_MAX_REMOVALS):
            if not self._fetch(number, job):
                return
            if not job.needed:
                return  # it is mapped when it is held
            try:
                self._map(number)
                return
            except CacheIOError as error:
                if error.errno != errno.ENOENT:
                    raise
            except FormatError:  # of a local file that was damaged after it was fetched
                if refetched:
                    raise
                refetched = True
                self.path(number).unlink(missing_ok=True)
        raise CacheIOError(
            f"{self.path(number)}: other processes removed it {_MAX_REMOVALS} times before it "
            f"could be mapped: local_cache_bytes, {self._store.max_bytes}, is too small for all"
        )

    def _fetch(self, number: int, job: FetchJob) -> bool:
        """Whether the shard is there now, as far as one can tell."""
        row, path = self._manifest.shards[number], self.path(number)
        try:
            file = self._store.claim(path, row.uuid, row.bytes, needed=job.needed)
        except NoRoomError:
            self._store.held.forget(path)
            return False
        if file is None:
            return True
        try:
            fetch_shard(self._files, row, file)
            file.publish(path)
        except BaseException as error:
            file.discard()
            self._store.held.forget(path)
            if isinstance(error, (CacheIOError, FormatError)):
                self._refuse_another_cache(error)
            raise
        return True

    def _map(self, number: int) -> None:
        path = shard_path(self._directory, self._manifest.shards[number].file)
        mark_used(path)
        self._reader.admit(number)
        with self._lock:
            self._mapped[number] = time.monotonic()

    def _refuse_another_cache(self, error: BaseException) -> None:
        """Where the shard is not what the manifest says because there is another manifest now."""
        try:
            data = self._files.read_all(MANIFEST_NAME, MAX_MANIFEST_BYTES)
        except CacheIOError:
            return  # `error` says enough
        found = manifest_digest(data)
        if found != self._manifest.digest:
            raise MismatchError(
                f"{self._files.location.url} has changed since it was opened: its digest is "
                f"{found}, not {self._manifest.digest}"
            ) from error

    def _unmap_what_nobody_needs(self) -> None:
        # REQUIRES: the lock.
        now = time.monotonic()
        removed = self._store.held.num_removed
        look = now - self._looked >= _LOOK_SECONDS or removed != self._removals
        if not look and len(self._mapped) <= _MAX_UNHELD_MAPS:
            return
        unheld = [i for i in self._mapped if not self._store.held.is_held(self.path(i))]
        for i in unheld[: max(0, len(unheld) - _MAX_UNHELD_MAPS)]:
            self._unmap(i)
        if look:  # the files of those that other processes have removed still take room
            self._looked, self._removals = now, removed
            for i in unheld:
                if i in self._mapped and not self.path(i).exists():
                    self._unmap(i)

    def _unmap(self, number: int) -> None:
        del self._mapped[number]
        self._reader.dismiss(number)
