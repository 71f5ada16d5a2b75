"""The virtual environment of the other formats, apart from that of sparselogits."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_VENV = _HERE / ".venv"
PYTHON = _VENV / "bin" / "python"


def set_up() -> None:
    """Makes `.venv` beside this file and installs requirements.txt into it."""
    venv.create(_VENV, with_pip=True)
    subprocess.run(
        [PYTHON, "-m", "pip", "install", "-q", "-r", _HERE / "requirements.txt"],
        check=True,
        stdout=sys.stderr,
    )
