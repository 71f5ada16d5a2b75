"""`SparseLogits`: what reads return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.checks import integer
from sparselogits.config import CacheConfig


@dataclass(frozen=True, eq=False, repr=False)
class SparseLogits:
    """Records of P positions in CSR form, in the order in which they were asked for.

    Position t of a sequence holds the teacher's distribution of token t+1 given tokens ≤ t.
    Position p owns the entries `offsets[p]` to `offsets[p + 1]`; it may have none.

    Attributes:
        offsets: (P + 1,) int64; the first is 0, the last E.
        token_ids: (E,) int32, ascending and unique within a position, below `vocab_size`.
        counts: (E,) uint16, summing to `rounds` in each position that has entries. None in a
            weights cache.
        weights: (E,) float32: counts / rounds, or the stored weights.
        rounds: Draws per position.
        vocab_size: Number of tokens of the teacher.
        input_ids: (P,) int32 input tokens, or None where the cache does not store them.
        sequence_id: Of the one sequence that was read, else None.
        sequence_ids: (n,) uint64, where whole sequences were read, else None.
        sequence_offsets: (n + 1,) int64: sequence i owns the positions `sequence_offsets[i]` to
            `sequence_offsets[i + 1]`. None where positions were read.
    """

    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint16] | None
    weights: npt.NDArray[np.float32]
    rounds: int
    vocab_size: int
    input_ids: npt.NDArray[np.int32] | None = None
    sequence_id: int | None = None
    sequence_ids: npt.NDArray[np.uint64] | None = None
    sequence_offsets: npt.NDArray[np.int64] | None = None

    @property
    def num_positions(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_entries(self) -> int:
        return len(self.token_ids)

    def __len__(self) -> int:
        return self.num_positions

    def position(self, index: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """The (k,) token ids of one position and their counts, or weights in a weights cache.

        Raises:
            InvalidArgumentError: `index` is not from 0 to num_positions - 1.
        """
        index = integer("position", index, 0, self.num_positions - 1)
        entries = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        values = self.weights if self.counts is None else self.counts
        return self.token_ids[entries], values[entries]

    def __repr__(self) -> str:
        parts = [f"{self.num_positions} positions", f"{self.num_entries} entries"]
        if self.sequence_id is not None:
            parts.append(f"sequence_id {self.sequence_id}")
        elif self.sequence_ids is not None:
            parts.append(f"{len(self.sequence_ids)} sequences")
        parts.append("weights" if self.counts is None else f"counts of {self.rounds} rounds")
        parts.append(f"vocabulary of {self.vocab_size}")
        if self.input_ids is None:
            parts.append("no tokens")
        return f"SparseLogits({', '.join(parts)})"


def weights_of_counts(counts: npt.NDArray[np.uint16], rounds: int) -> npt.NDArray[np.float32]:
    """What a loss consumes: (E,) float32, counts / rounds, each rounded once."""
    weights: npt.NDArray[np.float32] = np.divide(counts, np.float32(rounds), dtype=np.float32)
    return weights


def sparse_logits(
    config: CacheConfig,
    offsets: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int32],
    counts: npt.NDArray[np.uint16] | None,
    weights: npt.NDArray[np.float32] | None,
    input_ids: npt.NDArray[np.int32] | None,
    **sequences: Any,
) -> SparseLogits:
    """What the core has read from a cache of this configuration."""
    if weights is None:
        assert counts is not None
        weights = weights_of_counts(counts, config.rounds)
    return SparseLogits(
        offsets,
        token_ids,
        counts,
        weights,
        config.rounds,
        config.vocab_size,
        input_ids,
        **sequences,
    )
