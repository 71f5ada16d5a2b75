"""`capture` is a thin wrapper: the same cache as `sl.capture` makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
    )
    path = tmp_path_factory.mktemp("teacher")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    path = tmp_path / "windows.npy"
    np.save(path, np.random.default_rng(0).integers(0, 50, (3, 8)).astype(np.uint16))
    return path


def test_the_same_cache_as_the_api(command, teacher: Path, windows: Path, tmp_path: Path) -> None:
    options = ["--rounds", 9, "--sampler", "systematic", "--seed", 4, "--no-tokenizer"]
    outcome = command("capture", teacher, windows, tmp_path / "a", *options, "--json")
    assert outcome.code == 0, outcome.err
    assert (outcome.json["sequences"], outcome.json["positions"]) == (3, 24)
    model = transformers.AutoModelForCausalLM.from_pretrained(teacher)
    direct = sl.capture(
        model, np.load(windows), tmp_path / "b", rounds=9, sampler="systematic", seed=4
    )
    made = sl.open(tmp_path / "a")
    assert made.config == direct.config
    for left, right in zip((made[i] for i in range(3)), (direct[i] for i in range(3)), strict=True):
        assert left.token_ids.tolist() == right.token_ids.tolist()
        assert left.counts.tolist() == right.counts.tolist()


def test_a_finished_cache_is_not_overwritten(
    command, teacher: Path, windows: Path, tmp_path: Path
) -> None:
    arguments = ["capture", teacher, windows, tmp_path / "a", "--no-tokenizer"]
    assert command(*arguments).code == 0
    digest = sl.open(tmp_path / "a").digest
    assert command(*arguments).code in (2, 3)
    assert sl.open(tmp_path / "a").digest == digest


@pytest.mark.parametrize("options", [["--sampler", "top-k"], ["--rounds", 0], ["--metadata", "x"]])
def test_wrong_options(command, teacher: Path, windows: Path, tmp_path: Path, options) -> None:
    outcome = command("capture", teacher, windows, tmp_path / "a", "--no-tokenizer", *options)
    assert outcome.code == 2
    assert not list(tmp_path.glob("a/*.slc"))


def test_missing_model_and_windows(command, teacher: Path, windows: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for model, array in ((nowhere, windows), (teacher, nowhere)):
        outcome = command("capture", model, array, tmp_path / "a", "--no-tokenizer")
        assert outcome.code == 3, outcome.err
        assert "nowhere" in outcome.err
