"""What a plan asks for is what the batch holds, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from planned_batches import expected, found, plan_of, random_plan, tokens_of_all
from small_cache import VOCAB, write_cache

import sparselogits as sl
from sparselogits.errors import (
    FingerprintMismatchError,
    InvalidArgumentError,
    SequenceNotFoundError,
)
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader

LENGTHS = [[70 + 13 * (i % 5) for i in range(9)], [1, 3, 0, 200, 2]]


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> list[sl.Cache]:
    """One of several shards, and one of a single shard with very short sequences."""
    folder = tmp_path_factory.mktemp("plans")
    write_cache(folder / "a", LENGTHS[0], shard_bytes=1)
    write_cache(folder / "b", LENGTHS[1])
    return [sl.open(folder / "a"), sl.open(folder / "b")]


@pytest.mark.parametrize("seed", range(8))
def test_a_batch_holds_the_pieces_of_its_plan(caches: list[sl.Cache], seed: int) -> None:
    rng = np.random.default_rng(seed)
    reader = PlanReader(caches, pad_token_id=7)
    plan = random_plan(rng, LENGTHS, int(rng.integers(1, 6)))
    batch = reader.read(plan)
    assert found(batch) == expected(plan, LENGTHS, pad_token_id=7)
    assert batch.targets.vocab_size == VOCAB
    dtypes = [torch.int64, torch.int64, torch.int64, torch.int32, torch.float32]
    targets = batch.targets
    tensors = [batch.input_ids, batch.labels, targets.offsets, targets.token_ids, targets.weights]
    assert [tensor.dtype for tensor in tensors] == dtypes
    assert batch.sequence_ids.dtype == np.uint64


def test_the_label_of_a_last_position_is_the_next_token_of_its_sequence(
    caches: list[sl.Cache],
) -> None:
    reader = PlanReader(caches)
    whole = reader.read(plan_of([[(0, 1, 0, -1)]]))
    part = reader.read(plan_of([[(0, 1, 10, 20)]]))
    assert part.labels[0].tolist() == whole.input_ids[0, 11:21].tolist()
    assert whole.labels[0, -1] == -100


def test_whole_sequences_are_read_without_the_table_of_all(
    caches: list[sl.Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = sl.open(caches[0].path)
    monkeypatch.setattr(sl.Cache, "_sequences", lambda _: pytest.fail("the table was asked for"))
    plan = BatchPlan.of_sequences(np.array([8, 0, 3]))
    assert found(PlanReader([cache]).read(plan)) == expected(plan, LENGTHS)


def test_a_batch_may_have_no_rows_or_no_positions(caches: list[sl.Cache]) -> None:
    reader = PlanReader(caches)
    nothing = reader.read(BatchPlan.of_sequences(np.empty(0, np.int64)))
    assert nothing.input_ids.shape == (0, 0)
    assert nothing.targets.offsets.tolist() == [0]
    empty = reader.read(plan_of([[(1, 2, 0, -1)], [(1, 0, 1, 1)]]))
    assert empty.input_ids.shape == empty.labels.shape == (2, 0)
    assert empty.targets.num_entries == 0


def test_a_stream_gives_the_batches_of_its_plans_in_order(caches: list[sl.Cache]) -> None:
    rng = np.random.default_rng(0)
    plans = [random_plan(rng, LENGTHS, 3) for _ in range(20)]
    batches = [found(batch) for batch in PlanReader(caches).stream(plans)]
    assert batches == [expected(plan, LENGTHS) for plan in plans]


def test_tokens_that_the_cache_does_not_store_are_taken_from_the_caller(
    caches: list[sl.Cache], tmp_path: Path
) -> None:
    write_cache(tmp_path / "c", LENGTHS[0], store_tokens=False)
    mixed = [sl.open(tmp_path / "c"), caches[1]]
    reader = PlanReader(mixed, input_ids=[tokens_of_all(LENGTHS[0]), None], pad_token_id=5)
    plans = [random_plan(np.random.default_rng(seed), LENGTHS, 4) for seed in range(4)]
    for plan, batch in zip(plans, reader.stream(plans), strict=True):
        assert found(batch) == expected(plan, LENGTHS, pad_token_id=5)


def test_given_tokens_that_the_teacher_did_not_see_are_refused(caches: list[sl.Cache]) -> None:
    windows = tokens_of_all(LENGTHS[0])
    windows[4] = windows[4][::-1]
    reader = PlanReader(caches[:1], input_ids=[windows])
    reader.read(plan_of([[(0, 3, 0, -1)]]))
    with pytest.raises(FingerprintMismatchError, match="index 4"):
        reader.read(plan_of([[(0, 3, 0, -1)], [(0, 4, 5, 6)]]))


@pytest.mark.parametrize(
    ("piece", "error", "message"),
    [
        ((2, 0, 0, -1), InvalidArgumentError, "2 caches"),
        ((0, 9, 0, -1), SequenceNotFoundError, "9 sequences, there is no index 9"),
        ((0, 0, 0, 71), InvalidArgumentError, "0 to 71 of sequence 0, which has 70"),
        ((0, 0, 71, -1), InvalidArgumentError, "71 to 70 of sequence 0, which has 70"),
    ],
)
def test_a_piece_that_is_not_there_is_refused(
    caches: list[sl.Cache],
    piece: tuple[int, int, int, int],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        PlanReader(caches).read(plan_of([[(0, 1, 0, -1)], [piece]]))
