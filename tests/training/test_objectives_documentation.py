"""The examples of docs/objectives.md and docs/meters.md run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sparselogits as sl
from sparselogits.cli import main
from sparselogits.torch import SparseLogitDataset, objectives

DOCS = Path(__file__).parents[2] / "docs"
VOCABULARY, WINDOWS, LENGTH = 60, 4, 12


def blocks(page: str) -> list[tuple[str, str]]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"```(python|bash)\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples take for granted: a student, a batch of a cache, its teacher's logits."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    teacher = (2 * rng.standard_normal((WINDOWS, LENGTH, VOCABULARY))).astype(np.float32)
    with sl.CacheWriter("cache", sl.CacheConfig(VOCABULARY, rounds=50)) as writer:
        for number, rows in enumerate(teacher):
            draws = sl.sample(rows, position_keys=np.arange(LENGTH) + number * LENGTH)
            ids = rng.integers(0, VOCABULARY, LENGTH)
            writer.append(ids, draws.offsets, draws.token_ids, draws.counts)
    dataset = SparseLogitDataset("cache", batch_size=WINDOWS)
    (batch,) = dataset
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body, head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY, bias=False)
    student = nn.Sequential(body, head)
    hidden = body(batch.input_ids)
    return {
        "torch": torch,
        "student": student,
        "lm_head": head,
        "hidden": hidden,
        "logits": head(hidden),
        "batch": batch,
        "held_out": dataset,
        "teacher_logits": torch.from_numpy(teacher),
        "position_keys": np.arange(WINDOWS * LENGTH),
    }


@pytest.mark.parametrize("page, count", [("objectives.md", 4), ("meters.md", 5)])
def test_the_examples_run(
    page: str, count: int, names: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = blocks(page)
    assert len(found) == count
    for kind, code in found:
        if kind == "python":
            exec(code, names)
        else:
            assert main(shlex.split(code)[1:]) == 0
    if page == "meters.md":
        assert Path("calibration.png").read_bytes().startswith(b"\x89PNG")
        rate, bounds = names["acceptance"].rate, names["bounds"]
        assert bounds.lower - 0.1 < rate < bounds.upper + 0.1
        assert "0." in capsys.readouterr().out


def test_the_table_names_every_objective() -> None:
    table = (DOCS / "objectives.md").read_text(encoding="utf-8").split("|---", 1)[1]
    rows = {
        name: row
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert set(rows) == set(objectives.OBJECTIVES)
    for name, row in rows.items():
        needed = {"top_k": {"k": 1}, "top_p": {"p": 0.5}}.get(name, {})
        biased = objectives.make_objective(name, **needed).biased
        assert biased == (not row.split("|")[5].strip().startswith("no"))
