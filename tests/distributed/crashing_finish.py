"""`finish` in processes that die, each at another of its calls of the file system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparselogits.distributed import UnitDirectory, finish

#: Every call by which Python code changes what is there, or makes it durable.
_CALLS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
_DIED = 9


def finish_and_die(units: Path, copies: Path, *, before: bool) -> None:
    """Makes `copies/1`, `copies/2`, … of a directory; dies at that call in each but the last."""
    for call in range(1, 1000):
        path = copies / str(call)
        shutil.copytree(units, path)
        pid = os.fork()
        if pid == 0:
            _finish_until(path, call, before=before)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            return
        assert code == _DIED, code


def _finish_until(path: Path, call: int, *, before: bool) -> None:
    """Exits with 9 before or after the call of this number, counted from 1."""
    units = UnitDirectory(path)
    plan = units.read_plan()
    assert plan is not None
    counted = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal counted
            counted += 1
            dies = counted == call
            if dies and before:
                os._exit(_DIED)
            try:
                return function(*args, **kwargs)
            finally:
                if dies:
                    os._exit(_DIED)

        return wrapped

    for name in _CALLS:
        setattr(os, name, counting(getattr(os, name)))
    assert finish(units, plan)
