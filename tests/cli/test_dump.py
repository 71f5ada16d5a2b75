"""`dump` shows what was written, for machines and for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from expected_output import assert_expected

import sparselogits as sl


def test_json_is_what_was_written(command, cache: Path) -> None:
    report = command("dump", cache, "--json").json
    assert (report["sequence_index"], report["sequence_id"], report["length"]) == (0, 100, 3)
    assert report["rounds"] == 4
    first, empty, last = report["positions"]
    assert (first["position"], first["input_id"], first["next_input_id"]) == (0, 5, 7)
    assert first["entries"] == [
        {"token_id": 7, "count": 3, "weight": 0.75},
        {"token_id": 8, "count": 1, "weight": 0.25},
    ]
    assert empty["entries"] == []
    assert last["next_input_id"] is None


def test_next_token_is_known_at_the_end_of_a_range(command, cache: Path) -> None:
    (row,) = command("dump", cache, "--start", 1, "--stop", 2, "--json").json["positions"]
    assert (row["position"], row["input_id"], row["next_input_id"]) == (1, 7, 9)


def test_sequence_by_id(command, cache: Path) -> None:
    report = command("dump", cache, "--id", 2**64 - 1, "--json").json
    assert report["sequence_index"] == 2
    assert [entry["token_id"] for entry in report["positions"][0]["entries"]] == [0, 1, 2]


def test_limit(command, cache: Path) -> None:
    assert len(command("dump", cache, "--limit", 2, "--json").json["positions"]) == 2
    assert command("dump", cache, "--limit", 0, "--json").json["positions"] == []


def test_index_and_id_exclude_each_other(command, cache: Path) -> None:
    assert command("dump", cache, "--sequence", 0, "--id", 100).code == 2


@pytest.mark.parametrize("sequence", [0, 1, 2])
def test_for_people(command, cache: Path, sequence: int) -> None:
    outcome = command("dump", cache, "--sequence", sequence)
    assert outcome.code == 0
    assert_expected(f"dump_{sequence}.txt", outcome.out, cache)


def test_weights_cache_without_tokens(command, tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=10, proposal_temperature=1.5, store_tokens=False)
    with sl.CacheWriter(tmp_path / "w", config) as writer:
        writer.append(
            np.array([1]), np.array([0, 1]), np.array([4]), weights=np.array([1.5], np.float32)
        )
    (row,) = command("dump", tmp_path / "w", "--json").json["positions"]
    assert row["input_id"] is None
    assert row["entries"] == [{"token_id": 4, "count": None, "weight": 1.5}]
    assert "4=1.5" in command("dump", tmp_path / "w").out


def test_another_tokenizer_is_refused_with_what_differs(command, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def tokenizer(name: str, words: list[str]) -> PreTrainedTokenizerFast:
        vocabulary = {word: index for index, word in enumerate(words)}
        model = models.WordLevel(vocabulary, unk_token=words[0])
        made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
        made.save_pretrained(tmp_path / name)
        return made

    fingerprint = sl.fingerprint_tokenizer(tokenizer("teacher", ["a", "b", "c"]))
    tokenizer("other", ["a", "b", "d"])
    config = sl.CacheConfig(vocab_size=3, rounds=1, tokenizer_fingerprint=fingerprint)
    with sl.CacheWriter(tmp_path / "cache", config) as writer:
        writer.append([0], [0, 1], [1], [1])
    arguments = ("dump", tmp_path / "cache", "--sequence", "0", "--tokenizer")
    assert "'b'[1]" in command(*arguments, tmp_path / "teacher").out
    refused = command(*arguments, tmp_path / "other")
    assert refused.code == 1
    assert f"was made with the tokenizer {fingerprint}" in refused.err
