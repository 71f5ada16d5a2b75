"""Draws on their way from a worker to the client."""

from __future__ import annotations

import numpy as np
import pytest

from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm.packed_draws import WindowDraws, pack, pack_failure, unpack

COUNTS = WindowDraws(
    sequence_id=2**64 - 2,
    lengths=np.array([2, 0, 1]),
    token_ids=np.array([3, 7, 2**24 - 1], np.int32),
    counts=np.array([1, 65534, 65535], np.uint16),
    weights=None,
)
WEIGHTS = WindowDraws(
    sequence_id=0,
    lengths=np.array([1, 1]),
    token_ids=np.array([0, 5], np.int32),
    counts=None,
    weights=np.array([1e-30, 3.5], np.float32),
)
NOTHING = WindowDraws(9, np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint16), None)


@pytest.mark.parametrize("draws", [COUNTS, WEIGHTS, NOTHING])
def test_every_array_and_dtype_comes_back(draws: WindowDraws) -> None:
    words = pack(draws)
    assert words.dtype == np.int32
    back = unpack(words)
    assert back.sequence_id == draws.sequence_id
    for name in ("lengths", "token_ids", "counts", "weights"):
        sent, came = getattr(draws, name), getattr(back, name)
        if sent is None:
            assert came is None
        else:
            np.testing.assert_array_equal(came, sent)
            assert came.dtype == sent.dtype


@pytest.mark.parametrize("message", ["", "no", "position 3: nicht darstellbar, ≤ ∞"])
def test_a_failure_is_raised_with_the_message_of_the_worker(message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        unpack(pack_failure(message))
    assert str(caught.value) == message


@pytest.mark.parametrize("lost", range(1, 10))
def test_a_vector_that_was_cut_is_refused(lost: int) -> None:
    with pytest.raises(InvalidArgumentError, match="the engine returned"):
        unpack(pack(COUNTS)[:-lost])


def test_lengths_that_do_not_sum_to_the_entries_are_refused() -> None:
    words = pack(COUNTS)
    words[6] += 1
    with pytest.raises(InvalidArgumentError, match="cut on their way"):
        unpack(words)


@pytest.mark.parametrize(
    "answer, said",
    [
        (None, "nothing"),
        (np.zeros((7, 1), np.float32), r"an array of float32 with shape \(7, 1\)"),
        (np.zeros(8, np.int32), "an array of int32"),
        ([1, 2], "a list"),
    ],
)
def test_an_answer_of_vllm_itself_means_that_the_plugin_is_off(answer: object, said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"returned {said}.*without the plugin"):
        unpack(answer)
