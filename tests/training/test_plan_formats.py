"""Batches of plans are what `Cache.read` gives piece by piece, in every format of a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planned_batches import random_plan

import sparselogits as sl
from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader

VOCAB, ROUNDS = 3000, 37
LENGTHS = [700, 1, 64, 129, 4500]


def write(path: Path, codec: str, weights: bool, repeats: int = 1) -> sl.Cache:
    """Random records; with many `repeats` of each, LZ4 wraps the blocks."""
    config = sl.CacheConfig(
        vocab_size=VOCAB,
        rounds=ROUNDS,
        codec=codec,
        **({"value_kind": "weights", "weight_dtype": "float16"} if weights else {}),
    )
    rng = np.random.default_rng(repeats)
    with sl.CacheWriter(path, config) as writer:
        for length in LENGTHS:
            kinds = np.arange(length) // repeats
            entries = [int(kind * 7 % 6) for kind in kinds]
            ids = [
                np.sort((kind * 31 + np.arange(n) ** 2 * 11) % VOCAB)
                for kind, n in zip(kinds, entries, strict=True)
            ]
            values = {}
            if weights:
                drawn = [rng.random(n).astype(np.float16).astype(np.float32) for n in entries]
                values["weights"] = np.concatenate(drawn)
            else:
                values["counts"] = np.concatenate(
                    [np.r_[ROUNDS - n + 1, np.ones(n - 1, int)] if n else [] for n in entries]
                ).astype(np.int64)
            writer.append(
                kinds * 13 % VOCAB,
                np.cumsum([0, *entries]),
                np.concatenate(ids).astype(np.int64),
                **values,
            )
    return sl.open(path)


def check(plan: BatchPlan, caches: list[sl.Cache]) -> None:
    """Compares a batch with its pieces, read one by one."""
    batch = PlanReader(caches, pad_token_id=1).read(plan)
    targets, width = batch.targets, batch.input_ids.shape[1]
    entry = 0
    for row in range(plan.num_rows):
        at = 0
        for piece in range(plan.row_offsets[row], plan.row_offsets[row + 1]):
            cache = caches[plan.caches[piece]]
            sequence, start, stop = (
                int(column[piece]) for column in (plan.sequences, plan.starts, plan.stops)
            )
            length = LENGTHS[sequence]
            stop = length if stop < 0 else stop
            part = cache.read(sequence, start, stop)
            longer = cache.read(sequence, start, min(stop + 1, length)).input_ids
            assert longer is not None
            there = slice(at, at + stop - start)
            assert batch.input_ids[row, there].tolist() == longer[: stop - start].tolist()
            labels = longer[1:].tolist() + ([-100] if stop == length and start < stop else [])
            assert batch.labels[row, there].tolist() == (labels if start < stop else [])
            first = row * width + at
            found = targets.offsets[first : first + stop - start + 1]
            assert (found - entry).tolist() == part.offsets.tolist()
            entries = slice(entry, entry + part.num_entries)
            assert targets.token_ids[entries].tolist() == part.token_ids.tolist()
            assert targets.weights[entries].numpy().tobytes() == part.weights.tobytes()
            entry, at = entries.stop, there.stop
        assert batch.input_ids[row, at:].tolist() == [1] * (width - at)
        assert batch.labels[row, at:].tolist() == [-100] * (width - at)
        assert set(targets.offsets[row * width + at : (row + 1) * width + 1].tolist()) == {entry}
    assert entry == targets.num_entries


@pytest.mark.parametrize("repeats", [1, 50])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("codec", ["packed", "compact"])
def test_a_batch_is_what_reads_of_its_pieces_are(
    tmp_path: Path, codec: str, weights: bool, repeats: int
) -> None:
    cache = write(tmp_path / "c", codec, weights, repeats)
    rng = np.random.default_rng(0)
    for _ in range(25):
        check(random_plan(rng, [LENGTHS], 3), [cache])


def test_a_batch_may_mix_caches_of_counts_and_of_weights(tmp_path: Path) -> None:
    caches = [
        write(tmp_path / "a", "compact", weights=False),
        write(tmp_path / "b", "packed", weights=True),
        write(tmp_path / "c", "packed", weights=False, repeats=50),
    ]
    rng = np.random.default_rng(1)
    for _ in range(25):
        check(random_plan(rng, [LENGTHS] * 3, 4), caches)


def test_caches_of_different_vocabularies_do_not_make_one_batch(tmp_path: Path) -> None:
    first = write(tmp_path / "a", "packed", weights=False)
    with sl.CacheWriter(tmp_path / "b", sl.CacheConfig(vocab_size=VOCAB + 1, rounds=9)):
        pass
    with pytest.raises(VocabularyMismatchError, match="3001 ids"):
        PlanReader([first, sl.open(tmp_path / "b")])
    with pytest.raises(InvalidArgumentError, match="caches is empty"):
        PlanReader([])
