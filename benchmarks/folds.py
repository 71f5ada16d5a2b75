"""Cross-validation: what is learnt on some sequences of a sample, and measured on the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from samples import Sample


@dataclass(frozen=True)
class Fold:
    """One split of a sample by whole sequences.

    Neighbouring sequences come from one document, so what is held out is contiguous.
    """

    number: int
    train: Sample
    test: Sample


def folds(sample: Sample, count: int) -> Iterator[Fold]:
    """Holds out each of `count` contiguous parts once. Together the tests are the whole sample."""
    sequences = np.arange(len(sample.tokens))
    for number, held_out in enumerate(np.array_split(sequences, count)):
        rest = np.setdiff1d(sequences, held_out)
        yield Fold(number, sample.select(rest), sample.select(held_out))
