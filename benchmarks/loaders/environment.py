"""The virtual environment of the other loaders, and this library within it."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import sparselogits

_HERE = Path(__file__).resolve().parent
_VENV = _HERE / ".venv"


def set_up() -> None:
    """Makes `.venv` beside this file and installs requirements.txt into it."""
    venv.create(_VENV, with_pip=True)
    command = [_VENV / "bin" / "python", "-m", "pip", "install", "-q", "-r"]
    subprocess.run([*command, _HERE / "requirements.txt"], check=True, stdout=sys.stderr)


def interpreter() -> Path:
    """That of `.venv` where it was made, else the one that runs."""
    made = _VENV / "bin" / "python"
    return made if made.exists() else Path(sys.executable)


def with_this_library(scratch: Path) -> dict[str, str]:
    """Environment variables for an interpreter of the same version that lacks sparselogits."""
    package = Path(sparselogits.__file__).resolve().parent
    folder = scratch / "packages"
    folder.mkdir()
    (folder / package.name).symlink_to(package)
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_WAIT_POLICY": "PASSIVE"}
