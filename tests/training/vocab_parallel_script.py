"""One rank of test_sampling_vocab_parallel.py: runs all cases, prints {case: outcome} as JSON.

python vocab_parallel_script.py RANK RANKS FILE       (FILE: where the ranks meet)
"""

from __future__ import annotations

import datetime
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import sparselogits as sl
from sparselogits.sampling import SAMPLERS
from sparselogits.sampling_torch import rows as sampling_rows
from sparselogits.sampling_torch import shards as sampling_shards
from sparselogits.torch import sample_vocab_parallel

ROWS = 6
SHARDS = {  # columns of each rank; borders at the edges of tiles of 256 tokens and inside them
    2: {"at an edge": [512, 488], "cut": [300, 700], "one token": [299, 1], "in a tile": [90, 110]},
    3: {
        "at edges": [256, 512, 100],
        "cut": [300, 500, 77],
        "two cuts in a tile": [600, 20, 300],
        "a cut at each side": [255, 2, 443],
        "in a tile": [1, 1, 1],
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{sampler: {"sampler": sampler} for sampler in SAMPLERS},
    "temperature": {"temperature": 0.7, "rounds": 3, "seed": 2**64 - 1},
    "offset": {"sampler": "systematic", "offset": 0.75, "rounds": 7},
    "proposal": {"proposal_temperature": 0.8, "temperature": 1.3},
    "self-normalised": {"proposal_temperature": 1.2, "self_normalize": True},
}


def make_logits(vocab_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 4 * torch.randn((ROWS, vocab_size), generator=generator)
    logits[1, ::3] = -torch.inf
    logits[2, : vocab_size // 2] = -torch.inf
    logits[3] *= 1e30
    logits[4] = 0
    return logits


def shard_of(logits: torch.Tensor, columns: list[int], rank: int) -> tuple[torch.Tensor, int, int]:
    start = sum(columns[:rank])
    return logits[:, start : start + columns[rank]], start, logits.shape[1]


def assert_same(a: sl.Draws[Any], b: sl.Draws[Any]) -> None:
    for name in ("offsets", "token_ids", "counts", "weights"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            limit = 2 if a.counts is None and name == "weights" else 0
            np.testing.assert_array_max_ulp(ours.numpy(), theirs.numpy(), limit)


def equals_whole_rows(rank: int, columns: list[int], options: dict[str, Any]) -> None:
    logits = make_logits(sum(columns))
    assert_same(
        sample_vocab_parallel(*shard_of(logits, columns, rank), **options),
        sl.sample(logits, **options),
    )


def with_keys_and_bfloat16_in_any_order(rank: int, columns: list[int]) -> None:
    logits = make_logits(sum(columns)).to(torch.bfloat16)
    keys = np.arange(2 * ROWS).reshape(ROWS, 2) + 2**40
    place = len(columns) - 1 - rank  # the last rank has the first tokens
    assert_same(
        sample_vocab_parallel(*shard_of(logits, columns, place), position_keys=keys),
        sl.sample(logits, position_keys=keys),
    )


def in_chunks_of_rows(rank: int, columns: list[int]) -> None:
    for options in (OPTIONS["stratified"], OPTIONS["proposal"]):
        before, sampling_rows._LOGITS_PER_CHUNK = sampling_rows._LOGITS_PER_CHUNK, 1000
        try:
            equals_whole_rows(rank, columns, options)
        finally:
            sampling_rows._LOGITS_PER_CHUNK = before


def by_triton(rank: int, columns: list[int]) -> None:
    from sparselogits.sampling_torch import triton_tiles

    before = sampling_shards.best_backend
    sampling_shards.best_backend = lambda device: triton_tiles
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            equals_whole_rows(rank, columns, {"temperature": 0.9})
    finally:
        sampling_shards.best_backend = before


def without_rows(rank: int, columns: list[int]) -> None:
    logits = make_logits(sum(columns))[:0]
    draws = sample_vocab_parallel(*shard_of(logits, columns, rank))
    assert draws.offsets.tolist() == [0]
    assert draws.token_ids.shape == (0,)


def with_bad_logits(
    rank: int, columns: list[int], places: dict[tuple[int, int], float], **options: Any
) -> None:
    logits = make_logits(sum(columns))
    for place, value in places.items():
        logits[place] = value
    sample_vocab_parallel(*shard_of(logits, columns, rank), **options)


def with_a_masked_row(rank: int, columns: list[int]) -> None:
    logits = make_logits(sum(columns))
    logits[4] = -torch.inf
    sample_vocab_parallel(*shard_of(logits, columns, rank))


def with_other_arguments_on_rank_1(rank: int, columns: list[int], **changes: Any) -> None:
    logits, start, vocab_size = shard_of(make_logits(sum(columns)), columns, rank)
    arguments = {"local_logits": logits, "vocab_start": start, "vocab_size": vocab_size}
    if rank == 1:
        arguments |= changes
    sample_vocab_parallel(**arguments)


def cases(rank: int, ranks: int) -> Iterator[tuple[str, Callable[[], None]]]:
    for (shards, columns), (options, changes) in itertools.product(
        SHARDS[ranks].items(), OPTIONS.items()
    ):
        yield f"{shards}, {options}", partial(equals_whole_rows, rank, columns, changes)
    columns = SHARDS[ranks]["cut"]
    end = sum(columns) - 1
    for run in (with_keys_and_bfloat16_in_any_order, in_chunks_of_rows, by_triton, without_rows):
        yield run.__name__, partial(run, rank, columns)
    bad = partial(with_bad_logits, rank, columns)
    yield "nan on the last rank", partial(bad, {(2, end): np.nan, (3, 0): np.inf})
    yield "inf on the first rank", partial(bad, {(0, 3): np.inf, (0, end): np.nan})
    yield "overflow", partial(bad, {(1, 310): 3e38, (1, 5): 2e38}, temperature=0.25)
    yield "overflow of a proposal", partial(bad, {(1, 2): 3e38}, proposal_temperature=2.0)
    yield "masked row", partial(with_a_masked_row, rank, columns)
    other = partial(with_other_arguments_on_rank_1, rank, columns)
    yield "refused arguments", partial(other, rounds=0)
    yield "refused vocab_size", partial(other, vocab_size=None)
    yield "refused logits", partial(other, local_logits=torch.zeros(()))
    yield "other seed", partial(other, seed=1)
    yield "other start", partial(other, vocab_start=columns[0] + 1)
    yield "other vocab_size", partial(other, vocab_size=5000)


def outcome(run: Callable[[], None]) -> str:
    try:
        run()
    except (AssertionError, sl.SparseLogitsError) as error:
        return f"{type(error).__name__}: {error}"
    return "same draws"


def main() -> None:
    rank, ranks = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{sys.argv[3]}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    print(json.dumps({name: outcome(run) for name, run in cases(rank, ranks)}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
