"""Every example runs as it is started from a shell, learns something, and goes on where it was."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true"),
]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs an example with a folder for its output; returns the losses that it printed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run_example(name: str, *options: str) -> list[float]:
        arguments = [name, "--output", str(tmp_path / "run"), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        printed = capsys.readouterr().out
        return [float(loss) for loss in re.findall(r"\bloss'?:? '?([0-9.]+)", printed)]

    return run_example


@pytest.mark.parametrize(
    "name", ["plain_loop.py", "hf_trainer.py", "trl_sft.py", "lightning_module.py"]
)
def test_example_learns(run, name):
    losses = run(name, "--steps", "20")
    assert len(losses) == 20
    assert sum(losses[-4:]) / 4 < losses[0] - 0.5


@pytest.mark.parametrize("name", ["plain_loop.py", "hf_trainer.py", "lightning_module.py"])
def test_example_goes_on_within_an_epoch_as_if_it_had_not_stopped(run, tmp_path, name):
    options = ["--save-every", "5", "--cache", str(tmp_path / "run/cache")]
    schedule = {"hf_trainer.py": ["--learning-rate", "0"]}.get(name, [])  # it depends on --steps
    whole = run(name, "--steps", "13", *schedule)
    (tmp_path / "run").rename(tmp_path / "whole")
    (tmp_path / "run").mkdir()
    (tmp_path / "whole/cache").rename(tmp_path / "run/cache")
    first = run(name, "--steps", "5", *options, *schedule)
    rest = run(name, "--steps", "13", *options, *schedule)
    assert len(first + rest) == 13
    assert first + rest == pytest.approx(whole, abs=2e-4)


def test_accumulation_and_flattening_are_options(run):
    assert len(run("hf_trainer.py", "--steps", "2", "--accumulate", "2", "--alpha", "0.5")) == 2
    assert len(run("trl_sft.py", "--steps", "2", "--flatten")) == 2


def test_plain_loop_has_at_most_sixty_lines():
    assert len((EXAMPLES / "plain_loop.py").read_text().splitlines()) <= 60
