"""States: small, JSON, and refused by any dataset that they do not belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_cache import FIRST_ID, write_cache

from sparselogits import errors
from sparselogits.torch import SparseLogitDataset
from sparselogits.torch.state import MAX_EPOCH, StateKey


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("caches")
    return [write_cache(folder / name, [5] * 12) for name in ("a", "b", "c")]


def make(paths: list[str], **keywords: Any) -> SparseLogitDataset:
    return SparseLogitDataset(paths, **{"batch_size": 4, "seed": 3, **keywords})


def test_the_largest_state_has_200_bytes() -> None:
    settings = {name: {} for name in ("shuffle", "window", "filter", "mixture")}
    key = StateKey("f" * 64, 2**64 - 1, 2**31 - 1, settings)
    state = key.state(MAX_EPOCH, 2**63 - 1)
    text = json.dumps(state)
    assert len(text) <= 200
    assert key.position(json.loads(text)) == (MAX_EPOCH, 2**63 - 1)


def test_a_state_has_the_same_size_in_every_mode(paths: list[str]) -> None:
    plain, full = (
        make(paths, **keywords).state_dict()
        for keywords in (
            {},
            {
                "mixture_weights": [1, 2, 3], "window": 2, "cross_documents": True,
                "shuffle_block": 2, "sequence_filter": lambda facts: facts.sequence_ids > FIRST_ID,
            },
        )
    )  # fmt: skip
    assert list(plain) == list(full) == [
        "version", "cache", "seed", "epoch", "consumed", "global_batch", "settings",
    ]  # fmt: skip
    assert len(json.dumps(plain)) == len(json.dumps(full)) < 200


DIFFERENCES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"seed": 4}, "with seed 3 and this dataset has 4"),
    ({}, {"batch_size": 2}, "with global_batch 4 and this dataset has 2"),
    ({}, {"world_size": 2}, "with global_batch 4 and this dataset has 8"),
    ({}, {"shuffle": False}, "another shuffle; this dataset has shuffle=False$"),
    ({}, {"shuffle_block": 3}, "another shuffle; .* shuffle_block=3, open_blocks=8$"),
    ({"shuffle_block": 3}, {"shuffle_block": 3, "open_blocks": 2}, "shuffle; .*open_blocks=2$"),
    ({}, {"window": 2}, "another window; this dataset has window=2, cross_documents=False"),
    ({"window": 2}, {"window": 3}, "another window; this dataset has window=3"),
    ({"window": 2}, {"window": 2, "cross_documents": True}, "window; .*cross_documents=True"),
    ({"window": 2}, {"window": 2, "drop_partial_windows": True}, "drop_partial_windows=True$"),
    ({"window": 2}, {}, "another window; this dataset has window=None$"),
    ({}, {"sequence_filter": [FIRST_ID + 3 * i for i in range(5)]}, "another filter; .*='"),
    ({"sequence_filter": lambda f: f.sequence_ids > FIRST_ID}, {}, "filter; .*=None$"),
    ({}, {"mixture_weights": [1, 2, 1]}, r"mixture; .* mixture_shares=\(1, 2, 1\)$"),
    ({"mixture_weights": [1, 1, 1]}, {"mixture_weights": [1, 2, 1]}, r"mixture; .*\(1, 2, 1\)$"),
    ({"mixture_weights": [1, 1, 1]}, {}, "another mixture; this dataset has mixture_shares=None$"),
    ({}, {"cache_filter": lambda metadata: next(turns) != 1}, "with cache '.*' and this dataset"),
]  # fmt: skip
turns = iter([0, 1, 2])


@pytest.mark.parametrize("saved, here, message", DIFFERENCES, ids=lambda value: str(value)[:40])
def test_what_differs_is_named(
    paths: list[str], saved: dict[str, Any], here: dict[str, Any], message: str
) -> None:
    state = make(paths, **saved).state_after(1)
    dataset = make(paths, **here)
    with pytest.raises(errors.MismatchError, match=message):
        dataset.load_state_dict(state)
    assert dataset.state_dict() == dataset.state_after(0)  # and nothing is changed


def test_another_cache_is_named(paths: list[str]) -> None:
    state = SparseLogitDataset(paths[0], 4).state_dict()
    for other in (paths[1], paths[::-1], paths[:2]):
        with pytest.raises(errors.MismatchError, match="saved with cache"):
            SparseLogitDataset(other, 4).load_state_dict(state)
    state = SparseLogitDataset(paths, 4).state_dict()
    with pytest.raises(errors.MismatchError, match="saved with cache"):
        SparseLogitDataset(paths[::-1], 4).load_state_dict(state)


def test_what_the_order_does_not_depend_on_may_change(paths: list[str]) -> None:
    state = make(paths, sequence_filter=lambda facts: facts.lengths > 0).state_after(1)
    for same in (
        {"drop_last": False},
        {"pad_token_id": 7},
        {"prefetch_batches": 0},
        {"mixture_weights": None, "sequence_filter": None},
        {"batch_size": 2, "world_size": 2, "rank": 1},
    ):
        make(paths, **same).load_state_dict(state)
    mixed = make(paths, mixture_weights=[0.5, 0.25, 0.25]).state_after(1)
    make(paths, mixture_weights=[2, 1, 1]).load_state_dict(mixed)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 1}, "version 1"),
        ({"version": None}, "version None"),
        ({"consumed": 3}, "consumed is 3"),
        ({"consumed": 400}, "consumed is 400"),
        ({"consumed": -4}, "consumed must be an integer from 0 to .*, got -4"),
        ({"consumed": 4.0}, "consumed must be an integer .*, got 4.0"),
        ({"consumed": None}, "consumed must be an integer .*, got None"),
        ({"epoch": 2**32}, "epoch must be an integer from 0 to 4294967295"),
        ({"epoch": True}, "epoch must be an integer .*, got True"),
        ({"settings": "12"}, "settings must be 28 digits, got '12'"),
        ({"settings": None}, "settings must be 28 digits, got None"),
        ({"origin": -1}, "origin must be an integer from 0"),
    ],
)
def test_damaged_states_are_refused(paths: list[str], change: dict[str, Any], message: str) -> None:
    dataset = make(paths)
    with pytest.raises(errors.MismatchError, match=message):
        dataset.load_state_dict({**dataset.state_dict(), **change})


def test_something_else_is_no_state(paths: list[str]) -> None:
    for nothing in ({}, {"epoch": 1}):
        with pytest.raises(errors.MismatchError, match="version None"):
            make(paths).load_state_dict(nothing)


def test_a_cache_that_was_written_again_is_another(tmp_path: Path, paths: list[str]) -> None:
    path = write_cache(tmp_path / "a", [5] * 12)  # the same content: shards have new names
    with pytest.raises(errors.MismatchError, match="saved with cache"):
        SparseLogitDataset(path, 4).load_state_dict(SparseLogitDataset(paths[0], 4).state_dict())
