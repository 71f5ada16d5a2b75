"""Fingerprints are XXH64 of documented bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import sparselogits as sl


@pytest.mark.parametrize("length", [0, 1, 3, 7, 8, 33, 1000])
def test_tokens_are_hashed_as_little_endian_uint32(length: int) -> None:
    xxhash = pytest.importorskip("xxhash")
    ids = np.random.default_rng(length).integers(0, 2**32, length)
    expected = xxhash.xxh64_intdigest(ids.astype("<u4").tobytes())
    assert sl.fingerprint_tokens(ids) == expected
    assert sl.fingerprint_tokens(list(map(int, ids))) == expected
    assert sl.fingerprint_tokens(ids.astype(np.uint64)) == expected


def test_known_value() -> None:
    assert sl.fingerprint_tokens([]) == 0xEF46DB3751D8E999


@pytest.mark.parametrize("ids", [[-1], [2**32], [1.0], [True], [[1]], "abc"])
def test_what_is_refused(ids: Any) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="input_ids"):
        sl.fingerprint_tokens(ids)


class Tokenizer:
    """The parts of a tokenizer that count, in any order."""

    def __init__(self, vocabulary: dict[str, int], special: dict[str, Any]) -> None:
        self.vocabulary = vocabulary
        self.special_tokens_map = special

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary


def test_tokenizer_is_hashed_as_documented() -> None:
    xxhash = pytest.importorskip("xxhash")
    tokenizer = Tokenizer({"é": 1, "a": 0}, {"eos_token": "a", "additional": ["b", "c"]})
    canonical = [[["a", 0], ["é", 1]], [["additional", ["b", "c"]], ["eos_token", "a"]]]
    text = json.dumps(canonical, separators=(",", ":"))
    assert "\\u00e9" in text
    expected = xxhash.xxh64_hexdigest(text.encode())
    assert sl.fingerprint_tokenizer(tokenizer) == expected
    sl.CacheConfig(vocab_size=2, tokenizer_fingerprint=expected)


def test_tokenizer_differences_count_and_order_does_not() -> None:
    base = sl.fingerprint_tokenizer(Tokenizer({"a": 0, "b": 1}, {"x": "a", "y": "b"}))
    assert base == sl.fingerprint_tokenizer(Tokenizer({"b": 1, "a": 0}, {"y": "b", "x": "a"}))
    for other in (
        Tokenizer({"a": 1, "b": 0}, {"x": "a", "y": "b"}),
        Tokenizer({"a": 0, "b": 1}, {"x": "a"}),
        Tokenizer({"a": 0, "b": 1}, {"x": "b", "y": "b"}),
    ):
        assert sl.fingerprint_tokenizer(other) != base


@pytest.mark.parametrize("tokenizer", [None, "gpt2", Tokenizer({"a": None}, {})])  # type: ignore[dict-item]
def test_what_is_no_tokenizer(tokenizer: Any) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="get_vocab"):
        sl.fingerprint_tokenizer(tokenizer)
