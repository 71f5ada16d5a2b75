"""Caches of every kind for property tests: drawn by hypothesis, read back as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import sparselogits as sl

Content = dict[int, tuple[Any, ...]]


@dataclass(frozen=True)
class Recipe:
    """What makes a cache: its configuration, its sequences' ids and lengths, and a seed."""

    config: sl.CacheConfig
    lengths: dict[int, int]
    seed: int

    def tokens(self, sequence_id: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, sequence_id % 2**32, 1])
        return rng.integers(0, self.config.vocab_size, self.lengths[sequence_id])

    def write(self, path: Path, ids: list[int], **options: Any) -> sl.Cache:
        """A finished cache of some of the sequences, in the order of `ids`."""
        with sl.CacheWriter(path, self.config, {"teacher": "test"}, **options) as writer:
            for sequence_id in ids:
                self._append(writer, sequence_id)
        return sl.open(path)

    def _append(self, writer: sl.CacheWriter, sequence_id: int) -> None:
        rng = np.random.default_rng([self.seed, sequence_id % 2**32, 2])
        offsets, ids, values = [0], [], []
        for _ in range(self.lengths[sequence_id]):
            draws = rng.integers(0, self.config.vocab_size, self.config.rounds)
            unique, counts = np.unique(draws, return_counts=True)
            if rng.random() < 0.8:
                ids.append(unique)
                values.append(counts)
            offsets.append(sum(map(len, ids)))
        token_ids = np.concatenate([*ids, np.empty(0, np.int64)])
        counts = np.concatenate([*values, np.empty(0, np.int64)])
        tokens = self.tokens(sequence_id)
        if self.config.value_kind == "counts":
            writer.append(tokens, offsets, token_ids, counts, sequence_id)
        else:
            weights = counts * rng.random(len(counts))
            writer.append(tokens, offsets, token_ids, sequence_id=sequence_id, weights=weights)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    kind = draw(st.sampled_from(["counts", "weights"]))
    config = sl.CacheConfig(
        vocab_size=draw(st.sampled_from([2, 1000, 200_000])),
        rounds=draw(st.sampled_from([1, 7, 50])),
        value_kind=kind,
        weight_dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        store_tokens=draw(st.booleans()),
    )
    ids = draw(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 9), max_size=9, unique=True))
    lengths = {i: draw(st.sampled_from([0, 1, 3, 70])) for i in ids}
    return Recipe(config, lengths, draw(st.integers(0, 9)))


def content(cache: sl.Cache, *, tokens: bool = True) -> Content:
    """Every sequence by its id, as bytes that compare exactly: -0 is not 0, NaN is NaN."""
    found: Content = {}
    for index, read in enumerate(cache):
        values = read.weights if read.counts is None else read.counts
        input_ids = None if read.input_ids is None or not tokens else read.input_ids.tobytes()
        found[int(read.sequence_id)] = (
            read.offsets.tobytes(),
            read.token_ids.tobytes(),
            values.tobytes(),
            input_ids,
            int(cache.fingerprints[index]),
        )
    return found


def snapshot(path: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and times of a cache's files, and the time of its directory."""
    files = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(path.iterdir())}
    return {**files, ".": (b"", path.stat().st_mtime_ns)}
