"""The model of a repack: trained on all that is taken of the source, not on its first positions."""

from __future__ import annotations

import numpy as np

from sparselogits import _core
from sparselogits.reader import Cache
from sparselogits.repack_plan import RepackPlan
from sparselogits.repack_tokens import RepackTokens
from sparselogits.training_sample import TRAINING_POSITIONS, spread_positions, train_on


def train_for_plan(cache: Cache, plan: RepackPlan, tokens: RepackTokens) -> _core.CodecModel | None:
    """A model of positions spread evenly over the plan; None where it has no entries.

    Raises:
        FormatError, FingerprintMismatchError: As for `sparselogits.repack`.
    """
    starts = np.concatenate([[0], np.cumsum(cache.sequence_lengths[plan.indices])])
    total = int(starts[-1])
    entries = cache.num_entries * total // max(1, cache.num_positions)
    wanted = spread_positions(total, entries, TRAINING_POSITIONS)
    number = np.searchsorted(starts, wanted, side="right") - 1
    sequences, within = plan.indices[number], wanted - starts[number]
    sample = cache.read_positions(cache.sequence_starts[sequences] + within)
    return train_on(
        plan.config,
        sample.offsets,
        sample.token_ids,
        sample.counts,
        sample.weights,
        tokens.at(sequences, within, sample) if plan.config.store_tokens else None,
        expected_positions=total,
    )
