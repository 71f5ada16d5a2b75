"""Real teacher samples where a checkout has them beside it, synthetic ones otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import sparselogits as sl

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VOCAB_SIZE = 49152
LENGTH = 512


@dataclass(frozen=True)
class Sample:
    """Draws of a teacher: P positions in sequences of 512, E entries, ids ascending."""

    name: str
    rounds: int
    sampler: str
    tokens: npt.NDArray[np.int64]  # (P / 512, 512)
    offsets: npt.NDArray[np.int64]  # (P + 1,)
    token_ids: npt.NDArray[np.int64]  # (E,)
    counts: npt.NDArray[np.int64]  # (E,)

    @property
    def num_positions(self) -> int:
        return len(self.offsets) - 1

    @property
    def ids_per_position(self) -> float:
        return len(self.token_ids) / self.num_positions

    def select(self, sequences: npt.NDArray[np.int64]) -> Sample:
        """The sample that these sequences make, in this order."""
        positions = (sequences[:, None] * LENGTH + np.arange(LENGTH)).reshape(-1)
        lengths = np.diff(self.offsets)[positions]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        shifts = np.repeat(self.offsets[positions] - offsets[:-1], lengths)
        entries = shifts + np.arange(offsets[-1])
        return replace(
            self,
            tokens=self.tokens[sequences],
            offsets=offsets,
            token_ids=self.token_ids[entries],
            counts=self.counts[entries],
        )

    def config(self, **options: Any) -> sl.CacheConfig:
        """The configuration of a cache of the sample, `CacheConfig(**options)` for the rest."""
        options = {"vocab_size": VOCAB_SIZE} | options
        return sl.CacheConfig(rounds=self.rounds, sampler=self.sampler, **options)

    def append_to(self, writer: sl.CacheWriter) -> None:
        """Appends every sequence in one call."""
        starts = np.arange(len(self.tokens) + 1, dtype=np.int64) * LENGTH
        writer.append_many(
            self.tokens.reshape(-1), starts, self.offsets, self.token_ids, self.counts
        )

    def write(self, path: Path, model: Any = None, **options: Any) -> None:
        """Writes the sample as a cache of `config(**options)`."""
        with sl.CacheWriter(path, self.config(**options), model=model) as writer:
            self.append_to(writer)


def load_samples() -> list[Sample]:
    """The samples of `shared/data`, or one synthetic sample of the paper's sharpness."""
    files = sorted(DATA.glob("*.npz"))
    return [_load(file) for file in files] if files else [synthetic()]


def synthetic(num_sequences: int = 128, seed: int = 0) -> Sample:
    """50 draws a position from a power law with about 12 unique ids, like the paper's teacher."""
    rng = np.random.default_rng(seed)
    num_positions = num_sequences * LENGTH
    cumulative = np.cumsum(np.arange(1, VOCAB_SIZE + 1) ** -1.8)
    ranks = np.searchsorted(cumulative / cumulative[-1], rng.random((num_positions, 50)))
    ids = (ranks * 7919 + rng.integers(0, VOCAB_SIZE, (num_positions, 1))) % VOCAB_SIZE
    keys = np.arange(num_positions)[:, None] * VOCAB_SIZE + ids
    keys, counts = np.unique(keys, return_counts=True)
    positions, token_ids = np.divmod(keys, VOCAB_SIZE)
    offsets = np.searchsorted(positions, np.arange(num_positions + 1))
    tokens = rng.integers(0, VOCAB_SIZE, (num_sequences, LENGTH))
    return Sample("synthetic", 50, "multinomial", tokens, offsets, token_ids, counts)


def _load(file: Path) -> Sample:
    name = file.stem.removeprefix("smollm2-135m-").removesuffix("-dev")
    with np.load(file) as arrays:
        wide = {key: arrays[key].astype(np.int64) for key in arrays.files}
    sampler = "systematic" if name.startswith("systematic") else "multinomial"
    rounds = int(wide["counts"][: wide["offsets"][1]].sum())
    return Sample(
        name, rounds, sampler, wide["tokens"], wide["offsets"], wide["token_ids"], wide["counts"]
    )
