"""`sparselogits capture --unit-windows`: real processes under torchrun, and its options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from worker_processes import WINDOWS, contents, llama

import sparselogits as sl
from sparselogits.cli import main
from sparselogits.cli.worker_options import on_own_device

OPTIONS = ["--no-tokenizer", "--batch-size", "2", "--unit-windows", "4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A teacher and windows."""
    path = tmp_path_factory.mktemp("files")
    llama().save_pretrained(path / "teacher")
    np.save(path / "windows.npy", WINDOWS)
    return [str(path / "teacher"), str(path / "windows.npy")]


@pytest.fixture
def expected(tmp_path: Path) -> sl.Cache:
    return sl.capture(llama(), WINDOWS, tmp_path / "alone", batch_size=2, progress=False)


@pytest.mark.slow
def test_two_workers_of_torchrun(files: list[str], expected: sl.Cache, tmp_path: Path) -> None:
    """One of them reports."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "sparselogits", "capture", *files, str(tmp_path / "cache"), *OPTIONS]
    done = subprocess.run(
        [sys.executable, *torchrun, *command, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    reports = done.stdout.replace("}\n{", "}\0{").split("\0")
    assert sorted(json.loads(report).get("sequences", 0) for report in reports) == [0, len(WINDOWS)]
    assert contents(sl.open(tmp_path / "cache")) == contents(expected)
    assert not (tmp_path / "cache" / ".units").exists()


def test_a_worker_of_slurm_is_known_by_its_variables(
    files: list[str],
    expected: sl.Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rank 1 of 2 does all the work where rank 0 never starts, and says nothing."""
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert main(["capture", *files, str(tmp_path / "cache"), *OPTIONS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
    assert contents(sl.open(tmp_path / "cache")) == contents(expected)


@pytest.mark.parametrize(
    ("device", "local_rank", "used"),
    [
        ("cuda", "1", "cuda:1"),
        ("cuda", "5", "cuda:1"),
        ("cuda:3", "1", "cuda:3"),
        ("cpu", "1", "cpu"),
    ],
)
def test_each_worker_of_a_machine_has_its_gpu(
    device: str, local_rank: str, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four that it can see; of one, where the launcher shows it no other."""
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert on_own_device(Namespace(device=device)).device == used
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert on_own_device(Namespace(device="cuda")).device == "cuda:0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rank", "0"], "--rank has no effect without --unit-windows"),
        (["--ray", "1"], "--ray has no effect without --unit-windows"),
        (["--own-units-only"], "--own-units-only has no effect without --unit-windows"),
        (["--unit-windows", "4", "--ray-gpus", "1"], "--ray-gpus has no effect without --ray"),
        (["--unit-windows", "4", "--ray", "1", "--rank", "0"], "--rank has no effect with --ray"),
        (["--unit-windows", "4", "--rank", "0"], "rank and world_size go together"),
        (["--unit-windows", "0"], "unit_windows must be from 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_without_effect_are_refused(
    options: list[str],
    message: str,
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["capture", *files, str(tmp_path / "cache"), "--no-tokenizer", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
