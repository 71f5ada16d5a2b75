"""Runs a script as both ranks of a gloo process group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

RANKS = 2


def outcomes(script: Path) -> list[dict[str, str]]:
    """What `script RANK RANKS FILE` printed on each rank: {case: outcome} as JSON."""
    with TemporaryDirectory() as directory:
        processes = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(RANKS), f"{directory}/meet"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"TRITON_INTERPRET": "1"},
            )
            for rank in range(RANKS)
        ]
        try:
            outputs = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output) for output, _ in outputs]
