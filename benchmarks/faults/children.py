"""Runs a function in a forked child, so that what it does to its process is an outcome, not an end.

The parent only imports libraries and never calls them: a child that inherits a library's threads
without their stacks would hang or crash for a reason that no fault has.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ADDRESS_SPACE = 16 << 30
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Result:
    """What became of a function.

    Attributes:
        kind: "value" it returned, "error" it raised, "crash" a signal ended it, "hang" it took
            too long.
        value: What it returned; of an error its type and text; of a crash the signal.
    """

    kind: str
    value: Any = None


def run(function: Callable[[], Any], seconds: float = 20.0) -> Result:
    """Calls `function` in a child of its own. What it returns must be JSON."""
    reader, writer = os.pipe()
    child = spawn(lambda: _report(function, writer))
    os.close(writer)
    try:
        return _await(child, reader, seconds)
    finally:
        os.close(reader)


def spawn(function: Callable[[], None]) -> int:
    """Starts `function` in a child that leads its own process group and prints nothing."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
        function()
        code = 0
    finally:
        os._exit(code)


def kill_group(child: int) -> int:
    """SIGKILL to a spawned child and to all that it started; returns its wait status."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _report(function: Callable[[], Any], writer: int) -> None:
    try:
        message = ["value", function()]
    except BaseException as error:
        message = ["error", f"{type(error).__name__}: {error}"[:200]]
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(writer, data) :]


def _await(child: int, reader: int, seconds: float) -> Result:
    deadline = time.monotonic() + seconds
    received = b""
    ended = False
    while not received.endswith(b"\n"):
        if select.select([reader], [], [], _POLL_SECONDS)[0]:
            part = os.read(reader, 1 << 16)
            received += part
            ended = ended or not part
        if ended:
            break
        # What a child leaves running holds the pipe open: its own end must be looked for.
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if time.monotonic() > deadline:
            kill_group(child)
            return Result("hang")
    if received.endswith(b"\n"):
        kill_group(child)
        kind, value = json.loads(received)
        return Result(kind, value)
    status = kill_group(child)
    return Result("crash", signal.Signals(os.WTERMSIG(status)).name if status & 127 else "exit")
