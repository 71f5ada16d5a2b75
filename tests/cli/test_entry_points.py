"""The installed command, `python -m`, and what they import."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

_SCRIPT = Path(sysconfig.get_path("scripts")) / "sparselogits"


@pytest.mark.parametrize(
    "command", [[str(_SCRIPT)], [sys.executable, "-m", "sparselogits"]], ids=["script", "module"]
)
def test_console_command(command: list[str], cache: Path) -> None:
    done = subprocess.run([*command, "verify", cache, "--json"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True
    assert subprocess.run([*command, "explode"], capture_output=True).returncode == 2


def test_the_command_does_not_import_torch() -> None:
    code = "import sparselogits.cli, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_a_reader_that_stops_early_is_no_error(cache: Path) -> None:
    run = f"'{sys.executable}' -m sparselogits dump '{cache}'"
    script = f"set -o pipefail; (sleep 0.2; {run}) | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
