"""What a forked child must not take over: locks that were held, threads that are not there."""

from __future__ import annotations

import os

_process = object()


def this_process() -> object:
    """Something that is the same as long as this is the same process."""
    return _process


def _begin_child() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_begin_child)
