"""Workers as real processes: forked from a server that has imported torch once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from capture_models import VOCABULARY, PlainModel, llama
from torch import nn

import sparselogits as sl
from sparselogits.distributed import FileLock, capture_distributed

WINDOWS = np.random.default_rng(7).integers(0, VOCABULARY, (23, 10)).astype(np.uint16)
#: Units of a whole number of batches, so that the batches are those of a single process.
OPTIONS: dict[str, Any] = {"batch_size": 2, "rounds": 20, "seed": 3, "progress": False}
UNIT_WINDOWS = 4
NUM_UNITS = 6


class InterruptError(Exception):
    """What ends a worker that is not killed."""


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    raise InterruptError


def plain() -> nn.Module:
    """A teacher that is made without importing transformers, which takes seconds."""
    return PlainModel().eval()


def reading(model: nn.Module, read: Callable[[list[list[int]]], None]) -> nn.Module:
    """The model, which tells of each batch of windows before it reads it."""
    embedding = next(module for module in model.modules() if isinstance(module, nn.Embedding))
    forward = embedding.forward

    def telling(ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[-1] == WINDOWS.shape[1]:  # not the self-check's probe
            read(ids.tolist())
        return forward(ids)

    embedding.forward = telling  # type: ignore[method-assign]
    return model


def dying(model: nn.Module, batches: int, die: Callable[[], None] = kill_oneself) -> nn.Module:
    """The model, which dies when it is to read more than so many batches of windows."""
    left = batches

    def count(_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            die()

    return reading(model, count)


def capture_alone(path: Path, **options: Any) -> None:
    sl.capture(llama(), WINDOWS, path, **{**OPTIONS, **options})


def work(path: Path, batches: int | None = None, **options: Any) -> None:
    """One worker; with `batches`, one that dies."""
    model = llama() if batches is None else dying(llama(), batches)
    arguments = {"unit_windows": UNIT_WINDOWS, "poll_seconds": 0.05, **OPTIONS, **options}
    capture_distributed(model, WINDOWS, path, **arguments)


def work_without_locks(path: Path, **options: Any) -> None:
    """One worker where locks succeed and lock nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        first, second = (
            FileLock.acquire(path.with_name("lock")),
            FileLock.acquire(path.with_name("lock")),
        )
        assert first is not None
        assert second is not None
        work(path, **options)


def start(function: Callable[..., None], *args: Any, **kwargs: Any) -> BaseProcess:
    """A process that runs a function of this folder, with one thread of torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["worker_server"])
    with pytest.MonkeyPatch.context() as patch:  # the first call starts the server
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        process = context.Process(target=_run, args=(function, args, kwargs))
        process.start()
    return process


def ended(process: BaseProcess, seconds: float = 120) -> int:
    """Its exit code, negative for a signal."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{process.name} did not end within {seconds} s")
    return process.exitcode


def contents(cache: sl.Cache) -> list[tuple[Any, ...]]:
    """All that a reader sees, sequence by sequence in the order of the cache."""
    rows = []
    for index in range(len(cache)):
        seq = cache[index]
        ids = None if seq.input_ids is None else seq.input_ids.tolist()
        counts: npt.NDArray[Any] = seq.weights if seq.counts is None else seq.counts
        entries = (seq.offsets.tolist(), seq.token_ids.tolist(), counts.tolist())
        rows.append((seq.sequence_id, ids, *entries))
    return rows


def _run(function: Callable[..., None], args: Any, kwargs: Any) -> None:
    torch.set_num_threads(1)
    function(*args, **kwargs)
