"""What others could store of a sample: byte streams for general compressors, in NumPy.

All of them leave out how many entries a position has: its counts sum to `rounds`. The entries of a
position come back in the order in which the layout keeps them, not by id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from samples import VOCAB_SIZE, Sample

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Csr = tuple[npt.NDArray[Any], npt.NDArray[np.int32], npt.NDArray[np.uint16]]

_PAPER_ID_BITS = 17


@dataclass(frozen=True)
class RankTable:
    """Ids by falling frequency: what the columnar layouts learn."""

    ids: npt.NDArray[np.int32]  # (V,) by rank
    ranks: Integers  # (V,) by id

    @staticmethod
    def learn(train: Sample) -> RankTable:
        """Ties, and ids that the training part never drew, rank by id."""
        frequency = np.bincount(train.token_ids, minlength=VOCAB_SIZE)
        ids = np.argsort(-frequency, kind="stable")
        ranks = np.empty(VOCAB_SIZE, np.int64)
        ranks[ids] = np.arange(VOCAB_SIZE)
        return RankTable(ids.astype(np.int32), ranks)

    @property
    def nbytes(self) -> int:
        return 2 * VOCAB_SIZE


class Layout(Protocol):
    """Records as byte streams and back."""

    name: str
    learns: bool  # whether it needs the rank table

    def encode(self, sample: Sample, table: RankTable) -> list[Bytes]: ...
    def decode(self, streams: list[Bytes], rounds: int, table: RankTable) -> Csr: ...


class Paper:
    """The RS-KD paper's records (section "storage"): 17 bits of id and 7 of count in 3 bytes."""

    name = "24-bit"
    learns = False

    def encode(self, sample: Sample, table: RankTable | None = None) -> list[Bytes]:
        words = (sample.token_ids | sample.counts << _PAPER_ID_BITS).astype("<u4")
        return [words.view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1)]

    def decode(self, streams: list[Bytes], rounds: int, table: RankTable | None = None) -> Csr:
        raw = streams[0].reshape(-1, 3).astype(np.int32)
        words = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
        counts = (words >> _PAPER_ID_BITS).astype(np.uint16)
        return _offsets(counts, rounds), words & ((1 << _PAPER_ID_BITS) - 1), counts


class Planes:
    """Sorted ranks as gaps: their low bytes, their high bytes, and the counts less one."""

    name = "planes"
    learns = True

    def encode(self, sample: Sample, table: RankTable) -> list[Bytes]:
        gaps, counts = _gaps(sample, table)
        return [(gaps & 255).astype(np.uint8), (gaps >> 8).astype(np.uint8), counts]

    def decode(self, streams: list[Bytes], rounds: int, table: RankTable) -> Csr:
        low, high, counts = streams
        return _from_gaps(low | high.astype(np.int32) << 8, counts, rounds, table)


class Varint:
    """The same gaps in base 128, the least significant digit first; the counts less one."""

    name = "varint"
    learns = True

    def encode(self, sample: Sample, table: RankTable) -> list[Bytes]:
        gaps, counts = _gaps(sample, table)
        digits = np.stack([gaps & 127, gaps >> 7 & 127, gaps >> 14], axis=1)
        length = 1 + (gaps >= 1 << 7) + (gaps >= 1 << 14)
        place = np.arange(3)[None]
        digits |= (place < length[:, None] - 1) * 128
        return [digits[place < length[:, None]].astype(np.uint8), counts]

    def decode(self, streams: list[Bytes], rounds: int, table: RankTable) -> Csr:
        digits, counts = streams
        starts = np.concatenate([[0], np.flatnonzero(digits < 128)[:-1] + 1])
        place = np.arange(len(digits)) - np.repeat(starts, np.diff(starts, append=len(digits)))
        values = np.add.reduceat((digits & 127).astype(np.int32) << 7 * place, starts)
        return _from_gaps(values, counts, rounds, table)


def _gaps(sample: Sample, table: RankTable) -> tuple[Integers, Bytes]:
    """Ranks ascending within a position, each as what it is above the least that it could be."""
    ranks = table.ranks[sample.token_ids]
    first = sample.offsets[:-1]
    positions = np.repeat(np.arange(sample.num_positions), np.diff(sample.offsets))
    order = np.argsort(positions * VOCAB_SIZE + ranks)
    ranks = ranks[order]
    gaps = np.diff(ranks, prepend=0) - 1
    gaps[first] = ranks[first]
    return gaps, (sample.counts[order] - 1).astype(np.uint8)


def _from_gaps(gaps: npt.NDArray[Any], less_one: Bytes, rounds: int, table: RankTable) -> Csr:
    counts = less_one.astype(np.uint16) + np.uint16(1)
    offsets = _offsets(counts, rounds)
    sums = np.cumsum(gaps + 1)  # the rank plus one, plus what all positions before add up to
    before = np.concatenate([[0], sums[offsets[1:-1] - 1]])
    ranks = sums - 1 - np.repeat(before, np.diff(offsets))
    return offsets, table.ids[ranks], counts


def _offsets(counts: npt.NDArray[np.uint16], rounds: int) -> Integers:
    ends = np.flatnonzero(np.cumsum(counts, dtype=np.int64) % rounds == 0) + 1
    return np.concatenate([[0], ends])
