"""What the writers of these families write, and the oracle that compares whole caches with it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sparselogits as sl

METADATA = {"teacher": "torture"}


@dataclass(frozen=True)
class Workload:
    """n sequences, T positions and E entries, already canonical, and how they are appended.

    Attributes:
        steps: After which sequences an append ends, ascending, the last is n.
        flushes: Those of them that a flush follows.
    """

    config: sl.CacheConfig
    options: dict[str, int]
    sequence_ids: np.ndarray
    sequence_offsets: np.ndarray
    offsets: np.ndarray
    input_ids: np.ndarray
    token_ids: np.ndarray
    values: np.ndarray
    steps: list[int]
    flushes: frozenset[int]

    @property
    def num_sequences(self) -> int:
        return len(self.sequence_ids)

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """Sequences start … stop as the arguments of `append_many`."""
        first, last = self.sequence_offsets[start], self.sequence_offsets[stop]
        entries = slice(self.offsets[first], self.offsets[last])
        return {
            "input_ids": self.input_ids[first:last],
            "sequence_offsets": self.sequence_offsets[start : stop + 1] - first,
            "offsets": self.offsets[first : last + 1] - self.offsets[first],
            "token_ids": self.token_ids[entries],
            self.config.value_kind: self.values[entries],
            "sequence_ids": self.sequence_ids[start:stop],
        }


def make_workload(seed: int, num_sequences: int = 60) -> Workload:
    """A workload of its own for each seed: kinds, sizes, ids and the rhythm of commits differ."""
    rng = np.random.default_rng([seed, 0x51])
    counts = bool(rng.random() < 0.7)
    config = sl.CacheConfig(
        vocab_size=int(rng.choice([200, 5_000])),
        rounds=int(rng.integers(2, 12)),
        value_kind="counts" if counts else "weights",
        codec="packed",  # training: tests/python/test_training_crash.py
        store_tokens=bool(rng.random() < 0.7),
    )
    lengths = rng.integers(0, 30, num_sequences)
    positions = int(lengths.sum())
    draws = (rng.random((positions, config.rounds)) ** 3 * config.vocab_size).astype(np.int64)
    filled = rng.random(positions) < 0.9
    keys = (draws + np.arange(positions)[:, None] * config.vocab_size)[filled]
    unique, numbers = np.unique(keys, return_counts=True)
    entries = np.bincount(unique // config.vocab_size, minlength=positions)
    ids = rng.permutation(num_sequences).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    steps, at = [], 0
    while at < num_sequences:
        at = min(num_sequences, at + int(rng.choice([1, 1, 1, 2, 5])))
        steps.append(at)
    return Workload(
        config=config,
        options={
            "shard_bytes": int(rng.choice([2_000, 6_000, 1 << 30])),
            "commit_bytes": int(rng.choice([1, 900, 4_000])),
        },
        sequence_ids=ids if rng.random() < 0.5 else np.arange(num_sequences, dtype=np.uint64),
        sequence_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        offsets=np.concatenate([[0], np.cumsum(entries)]).astype(np.int64),
        input_ids=rng.integers(0, config.vocab_size, positions),
        token_ids=unique % config.vocab_size,
        values=numbers if counts else rng.random(len(unique), dtype=np.float32),
        steps=steps,
        flushes=frozenset(step for step in steps if rng.random() < 0.2),
    )


def write(
    workload: Workload,
    path: Path,
    resume: bool = False,
    committed: Callable[[int], object] = lambda _: None,
    closing: Callable[[], object] = lambda: None,
) -> int:
    """Writes what a cache lacks and closes it; returns how many sequences it began with.

    `committed` hears how many sequences are durable: what the writer found, and each time when a
    flush or an automatic commit has returned; `closing` is called before the writer is closed.
    """
    writer = sl.CacheWriter(path, workload.config, METADATA, resume=resume, **workload.options)
    found = writer.num_sequences
    committed(found)
    with writer:
        for start, stop in _missing_steps(workload, found):
            try:
                append(workload, writer, start, stop)
                if stop in workload.flushes:
                    writer.flush()
            except sl.CacheIOError:
                _insist(workload, writer)
                raise
            if _everything_is_committed(writer):
                committed(stop)
        closing()
    committed(workload.num_sequences)
    return found


def append(workload: Workload, writer: sl.CacheWriter, start: int, stop: int) -> None:
    """Appends sequences start … stop, a single one by `append`."""
    part = workload.part(start, stop)
    if stop - start > 1:
        writer.append_many(**part)
    else:
        del part["sequence_offsets"]
        writer.append(sequence_id=int(part.pop("sequence_ids")[0]), **part)


def recover_and_resume(
    workload: Workload, path: Path, at_least: int, at_most: int | None = None, recover: bool = True
) -> str:
    """What is wrong after a crash, or "": recovers, compares everything, resumes, compares again.

    Args:
        at_least: Sequences that were committed: they must be back.
        at_most: Sequences that may be back; default: all of the workload.
        recover: False goes straight to the resuming writer, which recovers for itself.
    """
    if recover:
        problem = _recover_twice(workload, path, at_least, at_most)
        if problem:
            return problem
    found = write(workload, path, resume=True)
    if not at_least <= found <= (workload.num_sequences if at_most is None else at_most):
        return f"resumed after {found} sequences, committed were {at_least}, at most {at_most}"
    return finished(workload, path)


def finished(workload: Workload, path: Path) -> str:
    """What keeps a cache from being the whole workload, complete, with no other file, or ""."""
    cache = sl.open(path)
    if not cache.complete:
        return "the finished cache is not complete"
    expected = {"manifest.json", *(row.file for row in cache.manifest.shards)}
    others = {file.name for file in path.iterdir()} ^ expected
    if others:
        return f"files left over or missing: {sorted(others)}"
    return difference(workload, cache, workload.num_sequences, workload.num_sequences)


def difference(workload: Workload, cache: sl.Cache, at_least: int, at_most: int) -> str:
    """How a cache differs from a prefix of the workload with at_least … at_most sequences."""
    number = len(cache)
    if not at_least <= number <= at_most:
        return f"{number} sequences, expected {at_least} to {at_most}"
    if cache.config != workload.config or cache.metadata != METADATA:
        return f"other config or metadata: {cache.config}, {cache.metadata}"
    cache.verify()
    found, part = cache.read_sequences(range(number)), workload.part(0, number)
    pairs = {
        "sequence_ids": (found.sequence_ids, part["sequence_ids"]),
        "sequence_offsets": (found.sequence_offsets, part["sequence_offsets"]),
        "offsets": (found.offsets, part["offsets"]),
        "token_ids": (found.token_ids, part["token_ids"]),
        "values": (
            found.weights if found.counts is None else found.counts,
            part[workload.config.value_kind],
        ),
    }
    if workload.config.store_tokens:
        pairs["input_ids"] = (found.input_ids, part["input_ids"])
    return ", ".join(f"{name} differ" for name, (a, b) in pairs.items() if not np.array_equal(a, b))


def _recover_twice(workload: Workload, path: Path, at_least: int, at_most: int | None) -> str:
    try:
        sl.recover(path)
        digest = sl.open(path).digest
        report = sl.recover(path)
    except sl.CacheIOError as error:
        if error.errno == errno.ENOENT and at_least == 0:
            return ""  # the writer died before there was a cache
        raise
    cache = sl.open(path)
    if report.shards or report.dropped_bytes or cache.digest != digest:
        return f"a second recovery changed something: {report}"
    return difference(
        workload, cache, at_least, workload.num_sequences if at_most is None else at_most
    )


def _insist(workload: Workload, writer: sl.CacheWriter) -> None:
    """A writer that failed must take nothing more: what follows would rest on a gap."""
    last = workload.num_sequences - 1
    for attempt in (writer.flush, lambda: append(workload, writer, last, last + 1)):
        try:
            attempt()
        except sl.CacheIOError:
            continue
        raise AssertionError("a writer went on after it had failed")


def _missing_steps(workload: Workload, found: int) -> Iterator[tuple[int, int]]:
    for stop in workload.steps:
        if stop > found:
            yield found, stop
            found = stop


def _everything_is_committed(writer: sl.CacheWriter) -> bool:
    """Whether the last append ended in a commit: the public face does not say."""
    shard = writer._shards._shard
    return shard is None or shard.uncommitted_bytes == 0
