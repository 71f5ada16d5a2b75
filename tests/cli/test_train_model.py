"""`train-model`, and the compact codec in the other verbs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparselogits as sl


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A cache that a model makes smaller."""
    rng = np.random.default_rng(0)
    draws = [
        np.unique((rng.random(20) ** 4 * 1000).astype(int), return_counts=True) for _ in range(3000)
    ]
    ids, counts = (np.concatenate(part) for part in zip(*draws, strict=True))
    offsets = np.cumsum([0, *(len(unique) for unique, _ in draws)])
    with sl.CacheWriter(tmp_path / "large", sl.CacheConfig(vocab_size=1000, rounds=20)) as writer:
        writer.append(rng.integers(0, 1000, 3000), offsets, ids, counts)
    return tmp_path / "large"


def test_a_model_is_trained_and_used(command, large: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "m.slm", tmp_path / "out"
    outcome = command("train-model", large, model, "--classes", "2", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    loaded = sl.CodecModel.load(model)
    assert outcome.json == {
        "path": str(model),
        "digest": loaded.digest,
        "bytes": loaded.nbytes,
        "classes": 2,
        "vocab_size": 1000,
        "rounds": 20,
        "codes_tokens": True,
    }
    outcome = command("repack", large, out, "--codec", "compact", "--model", model, "--json")
    assert (outcome.code, outcome.json["models"]) == (0, 1)
    assert sl.open(out).models == (loaded,)
    assert command("repack", large, tmp_path / "own", "--codec", "compact").code == 0
    assert command("verify", tmp_path / "own", "--json").json["models"] == 1


def test_options_of_training(command, large: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.slm"
    assert command("train-model", large, small, "--no-tokens", "--max-positions", "1000").code == 0
    assert not sl.CodecModel.load(small).codes_tokens
    assert "digest" in command("train-model", large, tmp_path / "m.slm").out


def test_refusals_have_their_exit_codes(command, large: Path, tmp_path: Path) -> None:
    model = tmp_path / "m.slm"
    model.write_bytes(b"something else")
    assert "exists" in command("train-model", large, model).err
    assert model.read_bytes() == b"something else"
    assert command("train-model", large, model).code == 2
    assert command("train-model", large, tmp_path / "n.slm", "--classes", "0").code == 2
    assert command("train-model", tmp_path / "nowhere", tmp_path / "n.slm").code == 3
    arguments = ["repack", large, tmp_path / "out", "--codec", "compact", "--model"]
    outcome = command(*arguments, model, "--json")
    assert (outcome.code, outcome.json["error"]["path"]) == (1, str(model))
    assert command(*arguments, tmp_path / "nowhere.slm").code == 3
    assert command("train-model", large, tmp_path / "n.slm", "--no-tokens").code == 0
    assert command(*arguments, tmp_path / "n.slm").code == 1
    assert not (tmp_path / "out").exists()


def test_reports_show_models_apart(command, large: Path, tmp_path: Path) -> None:
    assert command("repack", large, tmp_path / "c", "--codec", "compact").code == 0
    cache = sl.open(tmp_path / "c")
    (model,) = cache.models
    report = command("inspect", tmp_path / "c", "--json").json
    assert report["models"] == [
        {
            "file": model.file_name,
            "bytes": model.nbytes,
            "classes": model.num_classes,
            "codes_tokens": True,
        }
    ]
    assert report["config"]["codec"] == "compact"
    assert [shard["model"] for shard in report["shards"]] == [model.file_name]
    assert report["sections"]["models"]["bytes"] == model.nbytes
    assert sum(section["bits"] for section in report["sections"].values()) == 8 * report["bytes"]
    assert report["bytes"] == cache.nbytes
    for row in report["shards"]:
        assert sum(row["section_bits"].values()) == 8 * row["bytes"]
    tokens = report["sections"]["tokens"]["bytes"]
    assert report["records_bytes_per_position"] == pytest.approx(
        (cache.nbytes - model.nbytes - tokens) / cache.num_positions
    )
    assert 0 < report["overhead_bits_per_position"] < 8 * cache.nbytes / cache.num_positions
    stats = command("stats", tmp_path / "c", "--json").json
    assert (stats["codec"], stats["model_bytes"]) == ("compact", model.nbytes)
    assert model.file_name in command("inspect", tmp_path / "c").out
    model_file = tmp_path / "c" / model.file_name
    model_file.unlink()
    outcome = command("verify", tmp_path / "c", "--json")
    assert outcome.code == 3
    assert model.file_name in outcome.out
