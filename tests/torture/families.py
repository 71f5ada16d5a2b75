"""The families of faults: every module here that defines `run(scale) -> list[Row]`.

A new module is found by itself; nothing lists them. It may say `TEST_SCALE`, the scale at which
`make test` runs it in a few seconds. Modules may import `report` and, from tests/python, `caches`.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
DEFAULT_TEST_SCALE = 0.01

for _directory in (HERE, HERE.parent / "python"):
    if str(_directory) not in sys.path:
        sys.path.insert(0, str(_directory))


def family_names() -> list[str]:
    """The names of the modules, sorted. They are parsed for it, not imported."""
    return sorted(path.stem for path in HERE.glob("*.py") if _defines_run(path))


def load(name: str) -> ModuleType:
    """The module of a family."""
    return importlib.import_module(name)


def small_scale(module: ModuleType) -> float:
    """The scale at which `make test` runs a family."""
    return float(getattr(module, "TEST_SCALE", DEFAULT_TEST_SCALE))


def _defines_run(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)
