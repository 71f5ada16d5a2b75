"""Two processes train and evaluate as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes_script import run
from tiny import write_cache

# The evaluation takes 2 · 6 sequences a step: in the last one a rank has none, or the first again.
LENGTHS = [3, 4, 2, 5, 20, 24, 18, 22, 4, 21, 3, 23, 19, 6, 2, 20]


def test_two_processes_train_and_evaluate_as_one(tmp_path):
    cache = write_cache(tmp_path / "cache", LENGTHS)
    here = Path(__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(here / "processes_script.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for source, result in found.items():
        expected = run(source, cache, 4, tmp_path / "one")
        assert (result["processes"], expected["processes"]) == (2, 1)
        assert result["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        assert result["eval_losses"] == pytest.approx(expected["eval_losses"], abs=1e-5)
        for name, value in expected["parameters"].items():
            torch.testing.assert_close(result["parameters"][name], value, atol=1e-5, rtol=0)
