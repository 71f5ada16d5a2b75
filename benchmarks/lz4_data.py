"""Kinds of data that may shrink in LZ4, each as a function that writes a packed cache of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from samples import LENGTH, VOCAB_SIZE, Sample

import sparselogits as sl

_SURE = (0.5, 0.8, 0.95)  # shares of positions with one id
_WIDE_VOCABULARY = 151_936  # ids of 18 bits
_PROPOSAL_TEMPERATURE = 0.8
_WEIGHT_SEQUENCES = 8
_ROWS = 64  # of logits at a time

Write = Callable[[Path], object]


def lz4_data(samples: Sequence[Sample], caches: Sequence[Path]) -> Iterator[tuple[str, Write]]:
    """Names of the kinds, and what writes them.

    The samples, without and with tokens, one of them with ids of 18 bits too. The same draws as of
    a teacher that is sure of most positions, as of code or tables. Importance weights of a
    synthetic teacher. Any caches.
    """
    for sample in samples:
        yield f"{sample.name}", partial(sample.write, store_tokens=False)
        yield f"{sample.name} + tokens", sample.write
    last = samples[-1]
    yield f"{last.name} + tokens of 18 bits", partial(last.write, vocab_size=_WIDE_VOCABULARY)
    for share in _SURE:
        sure = sure_of(last, share)
        yield f"{share:.0%} one id", partial(sure.write, store_tokens=False)
        yield f"{share:.0%} one id + tokens", sure.write
    for dtype in ("float32", "float16", "bfloat16"):
        yield f"{dtype} weights", partial(write_weights, dtype)
    for path in caches:
        yield path.name, partial(sl.repack, path, codec="packed", store_tokens=False)
        yield f"{path.name} + tokens", partial(sl.repack, path, codec="packed")


def sure_of(sample: Sample, share: float) -> Sample:
    """The sample where a random share of the positions has its likeliest id alone."""
    sure = np.random.default_rng(0).random(sample.num_positions) < share
    lengths = np.diff(sample.offsets)
    positions = np.repeat(np.arange(sample.num_positions), lengths)
    order = np.lexsort((-sample.counts, positions))  # the likeliest of each position first
    is_likeliest = np.zeros(len(positions), bool)
    is_likeliest[order[sample.offsets[:-1]]] = True
    kept = is_likeliest | ~sure[positions]
    counts = np.where(sure[positions], sample.rounds, sample.counts)
    offsets = np.concatenate([[0], np.cumsum(np.where(sure, 1, lengths))])
    return replace(sample, offsets=offsets, token_ids=sample.token_ids[kept], counts=counts[kept])


def write_weights(dtype: str, path: Path) -> None:
    """Importance-sampled rows: power laws of random sharpness, each in its own order."""
    rng = np.random.default_rng(0)
    config = sl.CacheConfig(
        vocab_size=VOCAB_SIZE,
        proposal_temperature=_PROPOSAL_TEMPERATURE,
        weight_dtype=dtype,
        store_tokens=False,
    )
    law = -np.log(np.arange(1, VOCAB_SIZE + 1, dtype=np.float32))
    with sl.CacheWriter(path, config) as writer:
        for sequence in range(_WEIGHT_SEQUENCES):
            lengths, ids, weights = [np.zeros(1, np.int64)], [], []
            for first in range(0, LENGTH, _ROWS):
                sharpness = rng.uniform(1, 3, (_ROWS, 1)).astype(np.float32)
                draws = sl.sample(
                    sharpness * rng.permuted(np.tile(law, (_ROWS, 1)), axis=1),
                    rounds=config.rounds,
                    proposal_temperature=_PROPOSAL_TEMPERATURE,
                    position_keys=np.stack(
                        [np.full(_ROWS, sequence), np.arange(first, first + _ROWS)], axis=1
                    ),
                )
                lengths.append(np.diff(draws.offsets))
                ids.append(draws.token_ids)
                weights.append(draws.weights)
            writer.append(
                np.zeros(LENGTH, np.int64),
                np.cumsum(np.concatenate(lengths)),
                np.concatenate(ids),
                weights=np.concatenate(weights),
            )
