"""What the command says and returns when something goes wrong."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from sparselogits.cli.output import print_json
from sparselogits.errors import CacheIOError, InvalidArgumentError, SparseLogitsError

OK, BAD_DATA, USAGE, INPUT_OUTPUT, FAULT, INTERRUPTED = 0, 1, 2, 3, 70, 130


def exit_code(error: BaseException) -> int:
    """The exit code of an error; a kind that nobody foresaw is a fault of ours."""
    if isinstance(error, InvalidArgumentError):
        return USAGE
    if isinstance(error, (CacheIOError, OSError)):
        return INPUT_OUTPUT
    if isinstance(error, SparseLogitsError):
        return BAD_DATA
    return FAULT


def report_failure(error: BaseException, *, as_json: bool) -> None:
    """One line on stderr; with `as_json` also an object {"error": ...} on stdout."""
    message = " ".join(str(error).split()) or type(error).__name__
    code = exit_code(error)
    if code == FAULT:
        message = f"unexpected {type(error).__name__}: {message} (--debug shows the traceback)"
    print(f"sparselogits: {message}", file=sys.stderr)
    if as_json:
        print_json({"error": _describe(error), "exit_code": code})


def require(extra: str, *modules: str) -> None:
    """Refuses a verb whose optional packages are missing, and says how to get them.

    Raises:
        InvalidArgumentError: One of `modules` is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InvalidArgumentError(
            f"this verb needs {', '.join(missing)}: pip install 'sparselogits[{extra}]'"
        )


def _describe(error: BaseException) -> dict[str, Any]:
    path = getattr(error, "path", None) or getattr(error, "filename", None)
    return {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error) or type(error).__name__,
        "path": None if path is None else str(path),
        "offset": getattr(error, "offset", None),
        "field": getattr(error, "field", None),
    }
