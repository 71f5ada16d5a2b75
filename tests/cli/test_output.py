"""Reports and progress, apart from any verb."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest

from sparselogits.cli.output import Progress, jsonable, report_lines


def test_report_of_every_shape() -> None:
    report = {
        "num_positions": 1234567,
        "mean": 0.123456,
        "ok": True,
        "nothing": None,
        "inner": {"a": 1},
        "rows": [{"name": "x", "bytes": 5}, {"name": "long", "bytes": 12345}],
    }
    assert list(report_lines(report)) == [
        "num positions  1,234,567",
        "mean           0.1235",
        "ok             yes",
        "nothing        -",
        "inner",
        "  a  1",
        "rows",
        "  name   bytes",
        "  x          5",
        "  long  12,345",
    ]


def test_json_has_no_nan_and_no_numpy() -> None:
    value = {"a": np.float32(0.5), "b": [math.nan, -math.inf], "c": np.arange(2), "d": Path("x")}
    assert jsonable(value) == {"a": 0.5, "b": [None, None], "c": [0, 1], "d": "x"}


def test_progress_is_silent_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("verify") as progress:
        progress(1, 2)
        progress(2, 2)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    with Progress("verify") as progress:
        progress(2, 2)
    import sys

    assert isinstance(sys.stderr, Terminal)
    assert sys.stderr.getvalue().endswith("verify: 100.0 %\n")
