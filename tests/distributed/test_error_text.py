"""Errors that travel as text arrive as they were."""

from __future__ import annotations

import json

import pytest

import sparselogits as sl
from sparselogits.distributed.error_text import error_of, error_text


class PrivateError(sl.MismatchError):
    """One that no other process knows."""


@pytest.mark.parametrize(
    "error",
    [
        sl.InvalidArgumentError("rounds is 0"),
        sl.CorruptionError("is 3, limit 2", "shard-000000.slc", 17, "num_positions"),
        sl.TruncatedError("ends early"),
        sl.FingerprintMismatchError("window 3: Ünïcode"),
        sl.SequenceNotFoundError("no sequence_id 7"),
        sl.CacheIOError(28, "No space left on device", "cache/shard"),
        sl.CacheIOError("locked"),
        sl.SparseLogitsError(),
    ],
    ids=lambda error: f"{type(error).__name__}-{len(error.args)}",
)
def test_class_message_and_attributes_arrive(error: sl.SparseLogitsError) -> None:
    arrived = error_of(error_text(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert arrived.args == error.args
    assert {**vars(arrived)} == {**vars(error)}
    if isinstance(error, sl.CacheIOError):
        assert arrived.filename == error.filename  # type: ignore[attr-defined]


def test_a_private_class_arrives_as_its_public_base() -> None:
    arrived = error_of(error_text(PrivateError("seed is 1, not 2")))
    assert type(arrived) is sl.MismatchError
    assert str(arrived) == "seed is 1, not 2"


@pytest.mark.parametrize("name", ["SystemExit", "annotations", "unheard_of"])
def test_only_errors_of_ours_are_made(name: str) -> None:
    assert type(error_of(json.dumps([name, 1]))) is sl.SparseLogitsError
