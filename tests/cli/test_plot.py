"""`plot`, and the files that it reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparselogits.reliability import Reliability, ReliabilityBin

RESULT = Reliability(
    "equal_width",
    (ReliabilityBin(0.0, 0.5, 30, 0.4, 0.5), ReliabilityBin(0.5, 1.0, 70, 0.8, 0.6)),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    RESULT.save(tmp_path / "student.json")
    return tmp_path / "student.json"


def test_figures_of_two_bins() -> None:
    assert RESULT.count == 100
    assert RESULT.ece == pytest.approx(0.3 * 0.1 + 0.7 * 0.2)
    assert RESULT.mce == pytest.approx(0.2)
    assert RESULT.accuracy == pytest.approx(0.57)
    assert RESULT.confidence == pytest.approx(0.68)


def test_a_saved_result_is_drawn_and_its_figures_repeated(command, saved: Path) -> None:
    outcome = command("plot", saved, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    (result,) = outcome.json["results"]
    assert result["ece"] == pytest.approx(RESULT.ece)
    assert result["path"] == str(saved)
    picture = Path(outcome.json["picture"])
    assert picture == saved.with_suffix(".png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_several_results_side_by_side_in_another_format(command, saved: Path) -> None:
    output = saved.with_name("both.svg")
    outcome = command("plot", saved, saved, "--output", output)
    assert outcome.code == 0
    assert str(output) in outcome.out
    assert "0.17" in outcome.out
    text = output.read_text()
    assert text.count("<svg") == 1
    RESULT.plot(saved.with_name("one.svg"), title="a title")
    assert len(text) > 1.5 * len(saved.with_name("one.svg").read_text())


@pytest.mark.parametrize(
    "change, field",
    [
        ({"kind": "something"}, "kind"),
        ({"version": 2}, "version"),
        ({"binning": "wide"}, "binning"),
        ({"bins": []}, "bins"),
        ({"bins": [{"lower": 0.0}]}, "bins[0]"),
        ({"bins": [[1, 2]]}, "bins[0]"),
        *(
            ({"bins": [{**vars(RESULT.bins[0]), name: value}]}, "bins[0]")
            for name, value in (
                ("count", 0),
                ("count", 1.5),
                ("count", True),
                ("upper", 1.5),
                ("upper", 0.0),
                ("confidence", 0.6),
                ("confidence", "high"),
                ("accuracy", float("nan")),
            )
        ),
    ],
)
def test_other_files_are_bad_data_by_field(command, saved: Path, change: Any, field: str) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()) | change))
    outcome = command("plot", saved, "--json")
    assert outcome.code == 1
    assert outcome.json["error"]["field"] == field
    assert outcome.json["error"]["path"] == str(saved)


@pytest.mark.parametrize("content", ["", "[1]", "\xff", "{"])
def test_what_is_no_result_is_bad_data(command, saved: Path, content: str) -> None:
    saved.write_bytes(content.encode("latin-1"))
    assert command("plot", saved).code == 1


def test_missing_files_and_formats(command, saved: Path, tmp_path: Path) -> None:
    assert command("plot", tmp_path / "nowhere.json").code == 3
    assert command("plot", saved, "--output", tmp_path / "nowhere" / "a.png").code == 3
    outcome = command("plot", saved, "--output", tmp_path / "a.xyz")
    assert outcome.code == 2
    assert "xyz" in outcome.err


def test_without_matplotlib_the_extra_is_named(command, saved: Path, monkeypatch) -> None:
    monkeypatch.setattr("sparselogits.cli.failures.find_spec", lambda name: None)
    outcome = command("plot", saved)
    assert outcome.code == 2
    assert "sparselogits[plot]" in outcome.err


def test_plotting_imports_no_torch_and_leaves_the_backend_alone(saved: Path) -> None:
    code = (
        "import sys; from sparselogits.cli import main\n"
        f"assert main(['plot', {str(saved)!r}]) == 0\n"
        "print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("set()", "")
