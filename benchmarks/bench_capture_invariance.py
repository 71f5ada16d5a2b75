"""How many draws move when only the batching of a capture changes: the figure of docs/capture.md.

Draws are a function of a row's logits and its key. Matrix products of other shapes may round a
logit differently in its last bits, and a draw on a boundary can then move. Takes about 8 minutes
on 2 cores; needs the extra `demo` (the teacher is SmolLM2-135M-Instruct).
"""

from __future__ import annotations

import tempfile
from collections import Counter

import numpy as np

import sparselogits as sl
from sparselogits.demo.teacher import load_teacher, prepare_teacher
from sparselogits.demo.text import make_corpus

_POSITIONS = 1024
_SAMPLERS = {"multinomial": 50, "systematic": 24}
_BATCHINGS = ((8, None), (1, None), (3, None), (8, 7), (8, 100))  # batch_size, chunk_rows


def main() -> None:
    model, tokenizer = load_teacher(prepare_teacher())
    windows = make_corpus(
        tokenizer, positions=_POSITIONS, held_out_windows=0, length=128, seed=5
    ).train
    for sampler, rounds in _SAMPLERS.items():
        reference = None
        for batch_size, chunk_rows in _BATCHINGS:
            with tempfile.TemporaryDirectory() as scratch:
                cache = sl.capture(
                    model,
                    windows,
                    f"{scratch}/cache",
                    rounds=rounds,
                    sampler=sampler,
                    tokenizer=tokenizer,
                    batch_size=batch_size,
                    chunk_rows=chunk_rows,
                )
                drawn = draws(cache)
            reference = drawn if reference is None else reference
            moved = (reference - drawn).total()
            print(
                f"{sampler} N={rounds}, batch_size {batch_size}, chunk_rows {chunk_rows}: "
                f"{moved} of {_POSITIONS * rounds} draws moved",
                flush=True,
            )


def draws(cache: sl.Cache) -> Counter[tuple[int, int]]:
    """How often each (position, token_id) was drawn."""
    everything = cache.read_sequences(np.arange(len(cache)))
    assert everything.counts is not None
    rows = np.repeat(np.arange(everything.num_positions), np.diff(everything.offsets))
    keys = zip(rows.tolist(), everything.token_ids.tolist(), strict=True)
    return Counter(dict(zip(keys, everything.counts.tolist(), strict=True)))


if __name__ == "__main__":
    main()
