"""Scripts that run as all ranks of a gloo process group, two unless told otherwise."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

import sparselogits as sl

RANKS = 2


def outcomes(script: Path, ranks: int = RANKS) -> list[dict[str, str]]:
    """What `script RANK RANKS FILE` printed on each rank: {case: outcome} as JSON."""
    with TemporaryDirectory() as directory:
        processes = [
            subprocess.Popen(
                [sys.executable, script, str(rank), str(ranks), f"{directory}/meet"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"TRITON_INTERPRET": "1"},
            )
            for rank in range(ranks)
        ]
        try:
            outputs = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output) for output, _ in outputs]


def run_rank(cases: Callable[[int], dict[str, Callable[[], None]]]) -> None:
    """What a script does: meets the other rank, and prints {case: outcome} as JSON.

    Args:
        cases: The cases of a rank, by name; called in the process group.
    """
    rank, ranks = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{sys.argv[3]}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    print(json.dumps({name: _outcome(run) for name, run in cases(rank).items()}))
    dist.destroy_process_group()


def _outcome(run: Callable[[], None]) -> str:
    try:
        run()
    except (AssertionError, sl.SparseLogitsError) as error:
        return f"{type(error).__name__}: {error}"
    return "equal"
