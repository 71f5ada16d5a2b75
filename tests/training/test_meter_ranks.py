"""Meters of two ranks of a gloo process group add up to that of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import meter_ranks_script as script
import pytest


def test_every_rank_has_the_figures_of_all_positions(tmp_path: Path) -> None:
    command = [sys.executable, Path(script.__file__)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "2", str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    expected = script.outcome(*script.measure(0, 1))
    assert expected["positions"] == script.ROWS
    for process, (text, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
        assert json.loads(text) == pytest.approx(expected, rel=1e-12)
