"""Makes the records of a run: teacher draws, and draws that all take the same room."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from records import RECORDS, save_records

sys.path.append(str(Path(__file__).resolve().parents[1]))

from samples import VOCAB_SIZE, Sample, synthetic

_SEQUENCES = 2 * RECORDS
_LENGTH = 512
_ENTRIES = 12
_ROUNDS = 50


def make_records(draws: Path, equal: Path) -> None:
    """Writes the sequences of two datasets each into two .npz files."""
    save_records(draws, synthetic(_SEQUENCES))
    save_records(equal, _same_size())


def _same_size() -> Sample:
    """Exactly 12 ids at each position, as of a cache of the 12 most likely ones."""
    rng = np.random.default_rng(0)
    positions = _SEQUENCES * _LENGTH
    gaps = rng.integers(1, VOCAB_SIZE // _ENTRIES, (positions, _ENTRIES))
    rest = rng.multinomial(_ROUNDS - _ENTRIES, [1 / _ENTRIES] * _ENTRIES, positions)
    return Sample(
        name="same size",
        rounds=_ROUNDS,
        sampler="multinomial",
        tokens=rng.integers(0, VOCAB_SIZE, (_SEQUENCES, _LENGTH)),
        offsets=np.arange(positions + 1) * _ENTRIES,
        token_ids=np.cumsum(gaps, axis=1).reshape(-1),
        counts=1 + rest.reshape(-1),
    )
