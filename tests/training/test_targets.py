"""What SparseTargets accepts, refuses and moves."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch import SparseTargets

GOOD: dict[str, Any] = {
    "offsets": torch.tensor([0, 2, 2, 5]),
    "token_ids": torch.tensor([1, 7, 9, 0, 7]),
    "weights": torch.tensor([0.5, 0.5, 0.1, 0.2, 3.0]),
    "vocab_size": 10,
}


def test_accepts() -> None:
    targets = SparseTargets(**GOOD)
    assert (targets.num_rows, targets.num_entries) == (3, 5)
    assert SparseTargets(**{**GOOD, "token_ids": GOOD["token_ids"].int()}).num_rows == 3
    empty = SparseTargets(torch.tensor([0, 0]), torch.empty(0).long(), torch.empty(0))
    assert (empty.num_rows, empty.num_entries) == (1, 0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"offsets": torch.tensor([0, 2, 2, 5]).int()}, "offsets is torch.int32"),
        ({"offsets": torch.tensor([[0, 5]])}, "offsets has 2 dimensions"),
        ({"offsets": torch.empty(0).long()}, "offsets is empty"),
        ({"offsets": torch.tensor([1, 2, 5])}, r"offsets\[0\] is 1"),
        ({"offsets": torch.tensor([0, 3, 2, 5])}, "offsets decreases at row 1: from 3 to 2"),
        ({"offsets": torch.tensor([0, 2, 4])}, "ends at 4, but there are 5 entries"),
        ({"token_ids": torch.tensor([1.0, 7, 9, 0, 7])}, "token_ids is torch.float32"),
        ({"token_ids": torch.tensor([1, 7, 9, 0])}, "4 entries and weights 5"),
        ({"token_ids": torch.tensor([1, 7, 9, -1, 7])}, "token_ids holds -1"),
        ({"token_ids": torch.tensor([1, 7, 9, 10, 7])}, "holds 10; the vocabulary has 10"),
        ({"token_ids": torch.tensor([1, 7, 9, 0, 9])}, "row 2 holds token id 9 twice"),
        ({"token_ids": [1, 7, 9, 0, 7]}, "token_ids is list"),
        ({"weights": torch.ones(5).double()}, "weights is torch.float64"),
        ({"weights": torch.tensor([1, 1, torch.nan, 1, 1])}, r"weights\[2\] is nan"),
        ({"weights": torch.tensor([1, torch.inf, 1, 1, 1])}, r"weights\[1\] is inf"),
        ({"weights": torch.tensor([1.0, 1, 1, 1, -1])}, r"weights\[4\] is -1"),
        ({"weights": torch.ones(5, requires_grad=True)}, "requires grad"),
        ({"weights": torch.ones(5, device="meta")}, "weights is on meta and offsets on cpu"),
        ({"vocab_size": 0}, "vocab_size is 0"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        SparseTargets(**{**GOOD, **change})


def test_the_same_id_in_neighbouring_rows_is_fine() -> None:
    SparseTargets(torch.tensor([0, 1, 1, 2]), torch.tensor([4, 4]), torch.ones(2), 5)


def test_moves_keep_the_host_offsets() -> None:
    targets = SparseTargets(**GOOD)
    moved = targets.to("meta", non_blocking=True)
    assert moved.device.type == moved.weights.device.type == "meta"
    assert moved.vocab_size == 10
    assert torch.equal(moved.host_offsets, GOOD["offsets"])  # meta could not tell


def test_pickles() -> None:
    again = pickle.loads(pickle.dumps(SparseTargets(**GOOD)))
    assert torch.equal(again.token_ids, GOOD["token_ids"])
    assert again.vocab_size == 10
