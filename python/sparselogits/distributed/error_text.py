"""Errors of sparselogits as text, to travel between processes: a name and arguments, no code."""

from __future__ import annotations

import json

from sparselogits import errors
from sparselogits.errors import CacheIOError, SparseLogitsError


def error_text(error: SparseLogitsError) -> str:
    """JSON of the error's class, or the nearest one that is public, and its arguments."""
    name = next(base.__name__ for base in type(error).__mro__ if _public(base.__name__) is base)
    arguments = error.args
    if isinstance(error, CacheIOError) and error.filename is not None:
        arguments = (error.errno, error.strerror, error.filename)  # OSError keeps it out of args
    return json.dumps([name, *arguments], default=str)


def error_of(text: str) -> SparseLogitsError:
    """The inverse of `error_text`."""
    name, *arguments = json.loads(text)
    kind = _public(name)
    if kind is None:
        return SparseLogitsError(f"{name}: {arguments}")
    return kind(*arguments)


def _public(name: str) -> type[SparseLogitsError] | None:
    found = getattr(errors, name, None)
    is_ours = isinstance(found, type) and issubclass(found, SparseLogitsError)
    return found if is_ours else None
