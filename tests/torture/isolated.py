"""Runs a family in a fresh interpreter, and single trials in forks of it.

A fresh interpreter has one thread, so that it may fork; it can be started with a library preloaded;
and a trial that dies or hangs is an outcome, not the end of the run.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import families  # noqa: F401  (puts tests/python on the path)
from report import Row

HANG_SECONDS = 120.0

T = TypeVar("T")


class TrialDied(Exception):
    """A forked trial was killed by a signal or hung."""


def rows_of_fresh_interpreter(family: str, scale: float, **environment: str) -> list[Row]:
    """Runs `family.trials(scale, scratch)` in a new interpreter; `scratch` is an empty directory.

    Raises:
        CalledProcessError: The interpreter failed; it has said why on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="sparselogits-torture-", dir=_fast_disk()) as scratch:
        rows = Path(scratch) / "rows.json"
        work = Path(scratch) / "work"
        work.mkdir()
        subprocess.run(
            [sys.executable, __file__, family, repr(scale), str(work), str(rows)],
            check=True,
            env={**os.environ, **environment},
        )
        return [Row(**row) for row in json.loads(rows.read_text(encoding="utf-8"))]


def _fast_disk() -> str | None:
    """Memory where there is some: what a sync costs is not what these families are about."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def in_child(trial: Callable[[], T]) -> T:
    """The result of `trial`, which runs in a fork of this process.

    Raises:
        TrialDied: It was killed, or did not end in HANG_SECONDS (then it is killed).
        Exception: What the trial raised.
    """
    child = Child(lambda report: report(trial()))
    messages = child.wait(HANG_SECONDS)
    if child.hung:
        raise TrialDied(f"hung for {HANG_SECONDS:.0f} s")
    if child.signal is not None:
        raise TrialDied(f"killed by {signal.Signals(child.signal).name}")
    kind, value = messages[-1]
    if kind == "error":
        raise value
    return value  # type: ignore[no-any-return]


class Child:
    """A forked process whose work reports pickled messages through a pipe.

    The last message of a child that was not killed is ("value", last report) or ("error", raised).
    """

    def __init__(self, work: Callable[[Callable[[object], None]], object]) -> None:
        self.started = time.monotonic()
        self.messages: list[tuple[str, object]] = []
        self.signal: int | None = None
        self.hung = False
        self._bytes = b""
        self.pipe, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, write_end)
        os.close(write_end)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def read(self) -> bool:
        """Takes what is in the pipe; blocks until there is something. False at its end."""
        data = os.read(self.pipe, 1 << 16)
        self._bytes += data
        while len(self._bytes) >= 4:
            end = 4 + int.from_bytes(self._bytes[:4], "little")
            if len(self._bytes) < end:
                break
            self.messages.append(pickle.loads(self._bytes[4:end]))
            self._bytes = self._bytes[end:]
        return bool(data)

    def wait(self, seconds: float = HANG_SECONDS) -> list[tuple[str, object]]:
        """Everything that it reported until its end. A child that takes longer is killed."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
                self.hung = True
                self.kill()
                break
            if not self.read():
                break
        while self.read():
            pass
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return self.messages


def _be_child(work: Callable[[Callable[[object], None]], object], write_end: int) -> None:
    def send(kind: str, value: object) -> None:
        data = pickle.dumps((kind, value))
        os.write(write_end, len(data).to_bytes(4, "little") + data)

    try:
        work(lambda value: send("value", value))
    except BaseException as error:
        try:
            send("error", error)
        except Exception:  # an exception that cannot be pickled
            send("error", RuntimeError(repr(error)))
    finally:
        os._exit(0)  # nothing of the parent's may be flushed or cleaned up here


def main() -> None:
    family, scale, work, rows = sys.argv[1:]
    logging.disable(logging.WARNING)  # each killed writer's advice to recover
    result = importlib.import_module(family).trials(float(scale), Path(work))
    Path(rows).write_text(json.dumps([asdict(row) for row in result]), encoding="utf-8")


if __name__ == "__main__":
    main()
