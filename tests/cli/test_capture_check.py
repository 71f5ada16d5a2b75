"""`capture --check`: the verdict as text, as JSON and as the exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WINDOWS = np.random.default_rng(0).integers(0, 50, (12, 16))


def make_teacher(path: Path, scale: float) -> Path:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=scale,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_teacher(tmp_path_factory.mktemp("teacher"), 0.5)


@pytest.fixture
def cache(command, teacher: Path, tmp_path: Path) -> Path:
    np.save(tmp_path / "windows.npy", WINDOWS)
    options = ["--no-tokenizer", "--sampler", "systematic", "--offset", 0.25, "--no-overlap"]
    outcome = command("capture", teacher, tmp_path / "windows.npy", tmp_path / "c", *options)
    assert outcome.code == 0, outcome.err
    return tmp_path / "c"


def test_a_right_cache(command, teacher: Path, cache: Path) -> None:
    assert sl.open(cache).metadata["systematic_offset"] == "0.25"
    outcome = command("capture", teacher, "--check", cache, "--no-tokenizer", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["verdict"] == "ok"
    assert outcome.json["problems"] == []
    assert outcome.json["sequences"] == 1
    assert outcome.json["redraw_match"] == 1
    more = command("capture", teacher, "--check", cache, "--no-tokenizer", "--fraction", 1.0)
    assert more.code == 0, more.err
    assert "verdict" in more.out
    assert "chi square" in more.out


def test_another_teacher_is_bad_data(command, cache: Path, tmp_path: Path) -> None:
    other = make_teacher(tmp_path / "other", 0.4)
    arguments = ["capture", other, "--check", cache, "--no-tokenizer", "--fraction", 0.5]
    outcome = command(*arguments, "--json")
    assert outcome.code == 1
    assert [problem["name"] for problem in outcome.json["problems"]] == ["teacher", "distribution"]
    shown = command(*arguments)
    assert shown.code == 1
    assert "mismatch" in shown.out
    assert "the stored draws are not draws from the teacher's probabilities" in shown.out


def test_windows_can_be_given(command, teacher: Path, cache: Path, tmp_path: Path) -> None:
    arguments = ["--check", cache, "--no-tokenizer", "--fraction", 0.5]
    outcome = command("capture", teacher, tmp_path / "windows.npy", *arguments)
    assert outcome.code == 0, outcome.err
    np.save(tmp_path / "changed.npy", (WINDOWS + 1) % 50)
    outcome = command("capture", teacher, tmp_path / "changed.npy", *arguments, "--json")
    assert outcome.code == 1
    assert [problem["name"] for problem in outcome.json["problems"]] == ["tokens"]


def test_wrong_usage(command, teacher: Path, cache: Path, tmp_path: Path) -> None:
    windows = tmp_path / "windows.npy"
    for arguments, message in (
        ([teacher, windows, tmp_path / "out", "--check", cache], "--check writes nothing"),
        ([teacher, "--check", cache, "--fraction", 2.0], "fraction must be above 0"),
        ([teacher], "WINDOWS is missing"),
        ([teacher, windows], "OUT is missing"),
    ):
        outcome = command("capture", *arguments, "--no-tokenizer")
        assert (outcome.code, message in outcome.err) == (2, True), outcome.err
    outcome = command("capture", teacher, "--check", tmp_path / "none", "--no-tokenizer")
    assert outcome.code == 3
