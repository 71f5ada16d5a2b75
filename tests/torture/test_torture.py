"""Each family of faults at a small scale; the full runs are `make torture`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import run as torture
from families import family_names, load, small_scale
from report import Row, Tally, table


@pytest.mark.parametrize("name", family_names())
def test_nothing_is_lost(name: str) -> None:
    module = load(name)
    rows = module.run(small_scale(module))
    assert sum(row.tried for row in rows) > 0
    assert [row for row in rows if row.lost] == []


def test_a_row_whose_outcomes_do_not_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match="flips: 3 trials, but 2 outcomes"):
        Row("flips", 3, detected=1, harmless=1)


def test_a_tally_keeps_what_repeats_a_loss(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally("kills", "two writers")
    tally.recovered += 2
    tally.lose("seed 7: sequence 3 is gone")
    assert tally.row() == Row(
        "kills", 3, recovered=2, lost=1, note="two writers; LOST seed 7: sequence 3 is gone"
    )
    assert "LOST: kills: seed 7: sequence 3 is gone" in capsys.readouterr().err


def test_the_table_ends_with_sums() -> None:
    lines = table([("a", Row("x", 1000, detected=1000)), ("b", Row("y|z", 2, lost=2))]).split("\n")
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert "| y/z " in lines[3]
    assert [cell.strip() for cell in lines[4].split("|")[3:8]] == ["1,002", "1,000", "0", "0", "2"]


@pytest.mark.parametrize("lost, status", [(0, 0), (1, 1)])
def test_the_runner_fails_where_something_was_lost(
    lost: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up_family.py").write_text(
        "from report import Row\n"
        f"def run(scale):\n    return [Row('made up', 1, detected={1 - lost}, lost={lost})]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torture, "family_names", lambda: ["made_up_family"])
    monkeypatch.delitem(torture.sys.modules, "made_up_family", raising=False)
    assert torture.main(["--json", str(tmp_path / "rows.json")]) == status
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["lost"] == lost
