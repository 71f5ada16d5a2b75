"""Run as a program by test_training_crash.py: kills writers at every step of a training shard.

Usage: training_crash_script.py PATH

Forks one writer after the other, PATH/0, PATH/1, ..., where writer k dies by SIGKILL at its k-th
step: before or after a call that changes a file or takes long. The last one lives. Each notes in
PATH/k.flushed how many sequences it had flushed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compact_caches import COMPACT, SEQUENCES, train_early

import sparselogits as sl
from sparselogits import _core

FLUSHED_FIRST = 3


class Steps:
    """Counts the steps, once told to, and dies at one of them."""

    def __init__(self, last: int) -> None:
        self.counts = False
        self._last = last
        self._number = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._step()
            result = function(*arguments, **options)
            self._step()
            return result

        return counted

    def _step(self) -> None:
        if not self.counts:
            return
        if self._number == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self._number += 1


def watch(steps: Steps, patch: pytest.MonkeyPatch) -> None:
    class Watched(_core.ShardWriter):  # type: ignore[misc]
        pass

    for name in ("__init__", "finish", "commit"):
        setattr(Watched, name, steps.around(getattr(_core.ShardWriter, name)))
    patch.setattr(_core, "ShardWriter", Watched)
    patch.setattr(_core, "train_model", steps.around(_core.train_model))
    patch.setattr(os, "fsync", steps.around(os.fsync))
    for name in ("replace", "unlink"):
        patch.setattr(Path, name, steps.around(getattr(Path, name)))


def write(path: Path, last: int) -> None:
    steps = Steps(last)
    watch(steps, pytest.MonkeyPatch())
    train_early(pytest.MonkeyPatch())
    writer = sl.CacheWriter(path, COMPACT, {"teacher": "test"})
    for number, sequence in enumerate(SEQUENCES):
        sequence.append_to(writer)
        if number + 1 == FLUSHED_FIRST:
            writer.flush()
            path.with_suffix(".flushed").write_text(str(FLUSHED_FIRST))
            steps.counts = True
    writer.close()
    path.with_suffix(".flushed").write_text(str(len(SEQUENCES)))


def main(directory: Path) -> None:
    for last in range(1000):
        child = os.fork()
        if child == 0:
            write(directory / str(last), last)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
