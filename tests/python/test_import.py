"""Importing the package is cheap and promises its names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sparselogits as sl


def run(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    ).stdout


def test_import_leaves_torch_alone() -> None:
    out = run("import sparselogits, sys; print(sorted(m.split('.')[0] for m in sys.modules))")
    loaded = set(eval(out))
    assert "numpy" in loaded
    assert not loaded & {"torch", "transformers", "matplotlib"}


def test_names() -> None:
    for name in sl.__all__:
        assert getattr(sl, name) is not None
    assert sl.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sl.nothing  # noqa: B018


def test_capture_is_a_function_whichever_way_it_is_imported() -> None:
    out = run(
        "import sparselogits as sl\n"
        "first = callable(sl.capture)\n"
        "from sparselogits.capture import capture\n"
        "import sparselogits.capture\n"
        "from sparselogits import capture as package\n"
        "print(first, callable(capture), callable(sl.capture), callable(package))"
    )
    assert out.split() == ["True"] * 4


def test_errors_are_what_callers_expect() -> None:
    assert issubclass(sl.InvalidArgumentError, ValueError)
    assert issubclass(sl.MismatchError, ValueError)
    assert issubclass(sl.SequenceNotFoundError, (KeyError, IndexError))
    assert issubclass(sl.SequenceNotFoundError, IndexError)
    assert issubclass(sl.CacheIOError, OSError)
    assert all(
        issubclass(getattr(sl, name), sl.SparseLogitsError)
        for name in sl.__all__
        if name.endswith("Error")
    )
