"""`verify`: the deep check of a cache: every byte is read, decoded and hashed."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sparselogits.cache_models import CacheModels
from sparselogits.checks import boolean, integer
from sparselogits.directory import local_directory
from sparselogits.errors import CorruptionError, FormatError, SparseLogitsError
from sparselogits.fault import Fault
from sparselogits.files_to_verify import FilesToVerify, files_in
from sparselogits.manifest import Manifest
from sparselogits.remote.location import is_url
from sparselogits.shard_check import Progress, ShardCheck, check_digest, check_held, check_records

OnFault = Callable[[Fault], None]

_MAX_THREADS = 1024


@dataclass(frozen=True)
class VerifyReport:
    """What was read, and what was found to be wrong.

    Attributes:
        shards, sequences, positions, entries: What the manifest lists.
        bytes: Of all files, the manifest and the models included.
        complete: Whether a writer closed the cache.
        models: What the shards of a compact cache are coded with.
        unlisted: Names of shards in the directory that the manifest does not list: those of a
            writer at work, or of one that died (`sl.recover`).
        faults: In the order of the cache. Empty unless `keep_going`: the first one is raised.
    """

    shards: int
    sequences: int
    positions: int
    entries: int
    bytes: int
    complete: bool
    models: int = 0
    unlisted: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found to be wrong."""
        return not self.faults


def verify(
    path: str | os.PathLike[str],
    *,
    keep_going: bool = False,
    num_threads: int | None = None,
    progress: Progress | None = None,
    on_fault: OnFault | None = None,
) -> VerifyReport:
    """Reads every byte of a cache and checks all that the format promises.

    Shards are memory-mapped and checked frame by frame: memory does not grow with the cache.

    Args:
        path: The cache's directory, or a URL (`sparselogits.open`): what is not local is fetched,
            a shard for each thread at a time.
        keep_going: List every fault in the report instead of raising the first one.
        num_threads: Shards checked at a time; default: one for each usable core.
        progress: Called with the bytes done and the bytes to do, from several threads, one at a
            time. Each byte counts twice: it is decoded and hashed.
        on_fault: Called with each fault as soon as it and all before it are known.

    Raises:
        FormatError: The first fault in the order of the cache; names file, offset, field, reason
            and the sequences that it concerns. With `keep_going`: of the manifest alone, without
            which nothing else can be judged.
        CacheIOError: There is no cache. Without `keep_going` also: a file cannot be read.
        MismatchError: The manifest was replaced meanwhile.
        InvalidArgumentError: An argument is wrong.
    """
    if is_url(path):
        from sparselogits.reader import open as open_cache  # which imports this module

        files = open_cache(path)._shards.files_to_verify()
    else:
        files = files_in(local_directory(path))
    return verify_files(
        files,
        keep_going=keep_going,
        num_threads=num_threads,
        progress=progress,
        on_fault=on_fault,
    )


def verify_files(
    files: FilesToVerify,
    *,
    keep_going: bool = False,
    num_threads: int | None = None,
    progress: Progress | None = None,
    on_fault: OnFault | None = None,
) -> VerifyReport:
    """As `verify`."""
    keep_going = boolean("keep_going", keep_going)
    if num_threads is None:
        num_threads = len(os.sched_getaffinity(0))
    num_threads = integer("num_threads", num_threads, 1, _MAX_THREADS)
    manifest = files.manifest
    size = sum(row.bytes for row in manifest.shards)
    faults: list[Fault] = []
    ids: list[npt.NDArray[np.uint64]] = []

    def take(error: SparseLogitsError, fault: Fault) -> None:
        if not keep_going:
            raise error
        faults.append(fault)
        if on_fault is not None:
            on_fault(fault)

    models = CacheModels.listed(files.model_directory, manifest)
    blamed: set[str | None] = set()
    for check in _check_shards(files, models, keep_going, num_threads, _Meter(progress, 2 * size)):
        for found in check.faults:
            take(*found)
            blamed.add(found[1].path)
        ids.append(check.sequence_ids)
    for file, error in models.faults.items():
        if str(files.model_directory / file) not in blamed:  # no shard that can be read needs it
            take(error, Fault.of(error))
    repeated = _repeated_id(files.manifest_path, manifest, ids)
    if repeated is not None:
        take(*repeated)
    return VerifyReport(
        shards=len(manifest.shards),
        sequences=sum(row.sequences for row in manifest.shards),
        positions=sum(row.positions for row in manifest.shards),
        entries=sum(row.entries for row in manifest.shards),
        bytes=manifest.cache_bytes,
        complete=manifest.complete,
        models=len(manifest.models),
        unlisted=files.unlisted(),
        faults=tuple(faults),
    )


class _Stopped(Exception):
    """Ends a check whose result nobody waits for any more."""


class _Meter:
    """Adds up the progress of checks that run side by side."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def part(self) -> Progress:
        """The progress function of one check."""
        before = 0

        def report(done: int, _total: int) -> None:
            nonlocal before
            if self.stopped.is_set():
                raise _Stopped
            with self._lock:
                self._done += done - before
                before = done
                if self._progress is not None:
                    self._progress(self._done, self._total)

        return report


def _check_shards(
    files: FilesToVerify,
    models: CacheModels,
    keep_going: bool,
    num_threads: int,
    meter: _Meter,
) -> Iterator[ShardCheck]:
    """The check of each shard, in order. A few are under way while one is waited for."""
    waiting: deque[tuple[Future[ShardCheck], Future[ShardCheck]]] = deque()
    first_sequence = 0
    with ThreadPoolExecutor(num_threads, "sparselogits-verify") as pool:
        try:
            for number, row in enumerate(files.manifest.shards):
                records = partial(
                    check_records,
                    files.shard_directory,
                    row,
                    files.manifest.config,
                    models,
                    first_sequence,
                    keep_going,
                )
                digest = partial(check_digest, files.shard_directory, row, first_sequence)
                held = partial(check_held, files, number, first_sequence)
                waiting.append(
                    (
                        pool.submit(held, partial(records, meter.part())),
                        pool.submit(held, partial(digest, meter.part())),
                    )
                )
                first_sequence += row.sequences
                if len(waiting) > num_threads:
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            meter.stopped.set()
            pool.shutdown(cancel_futures=True)


def _result(records: Future[ShardCheck], digest: Future[ShardCheck]) -> ShardCheck:
    # Where a record is damaged, another digest says nothing new.
    check = records.result()
    return check if check.faults else ShardCheck(digest.result().faults, check.sequence_ids)


def _repeated_id(
    manifest_path: str, manifest: Manifest, ids: list[npt.NDArray[np.uint64]]
) -> tuple[FormatError, Fault] | None:
    """The fault that the same id is in two shards."""
    everything = np.concatenate([np.empty(0, np.uint64), *ids])
    order = np.argsort(everything, kind="stable")
    ordered = everything[order]
    repeated = np.flatnonzero(ordered[1:] == ordered[:-1])
    if not len(repeated):
        return None
    place = int(order[repeated[0] + 1])
    ends = np.cumsum([len(part) for part in ids])
    shard = int(np.searchsorted(ends, place, side="right"))
    row = manifest.shards[shard]
    first = sum(before.sequences for before in manifest.shards[:shard])
    index = first + place - (int(ends[shard - 1]) if shard else 0)
    value = int(ordered[repeated[0]])
    error = CorruptionError(
        f"{value} is in more than one place; the second is in {row.file}",
        manifest_path,
        None,
        "sequence_id",
    )
    return error, Fault.of(error, index, index + 1, (value,))
