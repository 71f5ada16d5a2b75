"""Capture: a teacher's distributions over token windows, sampled into a cache.

`sl.capture(...)` names both this package and its main function: the package can be called, so it
does not matter which of the two an import has put there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sparselogits.capture.check import check_capture
from sparselogits.capture.check_report import CaptureCheck
from sparselogits.capture.given_windows import GivenWindows
from sparselogits.capture.progress import CaptureProgress
from sparselogits.capture.run import capture
from sparselogits.capture.teacher_pass import capture_many
from sparselogits.capture.window_set import WindowSet
from sparselogits.capture.windows import Window, WindowStream

if TYPE_CHECKING:
    from sparselogits.capture.sinks import CacheSink, RowSink
    from sparselogits.capture.teacher_rows import TeacherRows

__all__ = [
    "CacheSink",
    "CaptureCheck",
    "CaptureProgress",
    "GivenWindows",
    "RowSink",
    "TeacherRows",
    "Window",
    "WindowSet",
    "WindowStream",
    "capture",
    "capture_many",
    "check_capture",
]

_NEEDS_TORCH = {"CacheSink": "sinks", "RowSink": "sinks", "TeacherRows": "teacher_rows"}


def __getattr__(name: str) -> Any:
    """Imports what needs torch only when it is asked for."""
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_NEEDS_TORCH[name]}", __name__), name)


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return capture(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
