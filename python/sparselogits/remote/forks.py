"""What a forked child must not take over: locks that were held, threads that are not there."""

from __future__ import annotations

import os
import threading

_process = object()
_lock = threading.Lock()


def process_lock() -> threading.Lock:
    """For what is made once in a process. In a child nobody holds it, whoever held its parent's."""
    return _lock


def this_process() -> object:
    """Something that is the same as long as this is the same process."""
    return _process


def _begin_child() -> None:
    global _lock, _process
    _process, _lock = object(), threading.Lock()


os.register_at_fork(after_in_child=_begin_child)
