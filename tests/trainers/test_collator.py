"""A collated row has the targets of its own sequence, or there is an error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import VOCABULARY, rows_of, sequence_id, student, tokens_of, write_cache

from sparselogits import FingerprintMismatchError, InvalidArgumentError, SequenceNotFoundError
from sparselogits.torch import sparse_kd_loss
from sparselogits.torch.collator import SparseLogitCollator

LENGTHS = [5, 9, 7]


@pytest.fixture
def cache(tmp_path):
    return write_cache(tmp_path / "cache", LENGTHS)


def entries(inputs, row: int) -> list[tuple[int, float]]:
    targets = inputs["sparse_targets"]
    part = slice(*targets.offsets[row : row + 2].tolist())
    return list(zip(targets.token_ids[part].tolist(), targets.weights[part].tolist(), strict=True))


def expected_entries(cache, sequence: int, position: int) -> list[tuple[int, float]]:
    ids, counts = cache[sequence].position(position)
    return [(int(i), int(c) / cache.config.rounds) for i, c in zip(ids, counts, strict=True)]


@pytest.mark.parametrize("multiple", [1, 8])
def test_rows_in_any_order_get_their_own_targets(cache, multiple):
    rows = rows_of(cache)
    order = [2, 0, 1]
    collate = SparseLogitCollator(cache, pad_token_id=3, pad_to_multiple_of=multiple)
    inputs = collate([rows[i] for i in order])
    width = inputs["input_ids"].shape[1]
    assert width == (9 if multiple == 1 else 16)
    for row, sequence in enumerate(order):
        length, ids = LENGTHS[sequence], tokens_of(sequence, LENGTHS[sequence]).tolist()
        assert inputs["input_ids"][row].tolist() == ids + [3] * (width - length)
        assert inputs["shift_labels"][row].tolist() == ids[1:] + [-100] * (width - length + 1)
        for position in range(width):
            wanted = expected_entries(cache, sequence, position) if position < length else []
            assert entries(inputs, row * width + position) == wanted
    assert inputs["sparse_targets"].vocab_size == VOCABULARY


def test_padding_of_the_rows_is_taken_off_and_made_anew(cache):
    plain = SparseLogitCollator(cache)(rows_of(cache))
    rows = []
    for row in rows_of(cache):
        padding = 12 - len(row["input_ids"])
        rows.append(
            {
                **row,
                "input_ids": [1] * padding + row["input_ids"],  # on the left, as generation has it
                "attention_mask": [0] * padding + [1] * len(row["input_ids"]),
            }
        )
    padded = SparseLogitCollator(cache)(rows)
    assert padded["input_ids"].tolist() == plain["input_ids"].tolist()
    assert torch.equal(padded["sparse_targets"].weights, plain["sparse_targets"].weights)


def test_rows_may_be_named_by_index(cache):
    rows = [{"input_ids": row["input_ids"], "row": i} for i, row in enumerate(rows_of(cache))]
    collate = SparseLogitCollator(cache, column="row", by_index=True)
    by_id = SparseLogitCollator(cache)(rows_of(cache))
    assert torch.equal(collate(rows)["sparse_targets"].token_ids, by_id["sparse_targets"].token_ids)


def test_rows_whose_next_label_is_ignored_have_no_target(cache):
    row = rows_of(cache)[1]
    labels = [-100] * 4 + row["input_ids"][4:]  # the prompt is four tokens long
    inputs = SparseLogitCollator(cache)([{**row, "labels": labels}])
    assert inputs["shift_labels"][0].tolist() == [*labels[1:], -100]
    for position in range(9):
        wanted = expected_entries(cache, 1, position) if position >= 3 else []
        assert entries(inputs, position) == wanted


def test_labels_that_are_the_inputs_change_nothing(cache):
    collate = SparseLogitCollator(cache)
    rows = [{**row, "labels": row["input_ids"]} for row in rows_of(cache)]
    with_labels, without = collate(rows), collate(rows_of(cache))
    assert torch.equal(with_labels["shift_labels"], without["shift_labels"])
    assert torch.equal(with_labels["sparse_targets"].offsets, without["sparse_targets"].offsets)


def test_flattened_rows_have_the_loss_of_padded_ones(cache):
    model = student().eval()
    padded = SparseLogitCollator(cache)(rows_of(cache))
    flat = SparseLogitCollator(cache, flatten=True)(rows_of(cache))
    assert flat["input_ids"].shape == (1, sum(LENGTHS))
    assert flat["position_ids"][0].tolist() == [t for n in LENGTHS for t in range(n)]
    losses = []
    for inputs in (padded, flat):
        arguments = {k: v for k, v in inputs.items() if k in ("input_ids", "position_ids")}
        logits = model(**arguments, use_cache=False).logits
        losses.append(sparse_kd_loss(logits, inputs["sparse_targets"]).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_documents_of_a_packed_row_do_not_see_each_other(cache):
    model = student().eval()
    row = rows_of(cache)[1]
    inputs = SparseLogitCollator(cache)([{**row, "seq_lengths": [4, 5]}, rows_of(cache)[2]])
    assert inputs["position_ids"].tolist() == [
        [0, 1, 2, 3, 0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 0, 0],
    ]
    ids = torch.tensor(row["input_ids"])
    assert inputs["shift_labels"][0].tolist() == [*ids[1:4], -100, *ids[5:], -100]
    assert entries(inputs, 3) == expected_entries(cache, 1, 3)  # the teacher's guess at an end
    logits = model(
        input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False
    ).logits[0]
    for part in (slice(0, 4), slice(4, 9)):
        alone = model(input_ids=ids[part][None], use_cache=False).logits[0]
        torch.testing.assert_close(logits[part], alone, atol=1e-5, rtol=0)


def test_a_cache_without_tokens_is_enough(tmp_path):
    cache = write_cache(tmp_path / "bare", LENGTHS, store_tokens=False)
    inputs = SparseLogitCollator(cache)(rows_of(cache))
    assert entries(inputs, 0) == expected_entries(cache, 0, 0)


@pytest.mark.parametrize("store_tokens", [True, False])
def test_tokens_that_the_teacher_did_not_read_are_an_error(tmp_path, store_tokens):
    cache = write_cache(tmp_path / "tokens", LENGTHS, store_tokens=store_tokens)
    collate = SparseLogitCollator(cache)
    rows = rows_of(cache)
    swapped = {**rows[0], "sequence_id": sequence_id(2)}
    with pytest.raises(FingerprintMismatchError, match="are the tokens of sequence_id 100"):
        collate([rows[1], swapped])
    cut = {**rows[1], "input_ids": rows[1]["input_ids"][:-2]}
    with pytest.raises(FingerprintMismatchError, match="7 tokens"):
        collate([cut])
    padded = {**rows[1], "input_ids": rows[1]["input_ids"] + [0, 0]}
    with pytest.raises(FingerprintMismatchError, match="0 tokens before and 2 behind"):
        collate([padded])


def test_a_sequence_that_is_not_there_is_an_error(cache):
    with pytest.raises(SequenceNotFoundError, match="no sequence_id 5"):
        SparseLogitCollator(cache)([{"input_ids": [1], "sequence_id": 5}])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"input_ids": [1]}, "has no sequence_id, only input_ids.*remove_unused_columns"),
        ({"sequence_id": 100}, "has no input_ids"),
        ({"input_ids": [1, 2], "labels": [1], "sequence_id": 100}, "labels has length 1"),
        (
            {"input_ids": [1, 2], "attention_mask": [1], "sequence_id": 100},
            "attention_mask has length 1",
        ),
        (
            {"input_ids": [1, 2], "seq_lengths": [1, 2], "sequence_id": 100},
            r"seq_lengths is \[1, 2\].*the row's 2 tokens",
        ),
    ],
)
def test_columns_that_are_missing_or_too_short_are_named(cache, row, named):
    with pytest.raises(InvalidArgumentError, match=named):
        SparseLogitCollator(cache)([row])


def test_arguments_that_mean_nothing_are_refused(cache):
    with pytest.raises(InvalidArgumentError, match="pad_to_multiple_of is 0"):
        SparseLogitCollator(cache, pad_to_multiple_of=0)
    with pytest.raises(InvalidArgumentError, match="at least one row"):
        SparseLogitCollator(cache)([])


def test_numpy_and_torch_columns_are_as_good_as_lists(cache):
    lists = SparseLogitCollator(cache)(rows_of(cache))
    for convert in (np.array, torch.tensor):
        rows = [{k: convert(v) for k, v in row.items()} for row in rows_of(cache)]
        assert torch.equal(SparseLogitCollator(cache)(rows)["input_ids"], lists["input_ids"])
