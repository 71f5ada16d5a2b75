"""Reads Python source without importing it: parameters, fields, fingerprints."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class FunctionFacts:
    """What tells one version of a function from another.

    Attributes:
        parameters: Names of all parameters in their order, `self` included.
        fingerprint: 16 hex digits of the function's text, without decorators and indentation.
    """

    parameters: tuple[str, ...]
    fingerprint: str


def function_facts(source: str, qualified_name: str) -> FunctionFacts | None:
    """The facts of a module's function or method such as "Class.method"; None if it has none."""
    node = _find(ast.parse(source), qualified_name)
    return _facts(source, node) if isinstance(node, _Function) else None


def live_function_facts(function: Callable[..., Any]) -> FunctionFacts:
    """The same of a function object, from where its code says that it was defined.

    Raises:
        OSError: Its source cannot be found.
        TypeError: It is no function made by a `def` statement.
    """
    source = textwrap.dedent(inspect.getsource(function))
    node = ast.parse(source).body[0]
    if not isinstance(node, _Function):
        raise TypeError(f"{source.strip()!r} defines no function")
    return _facts(source, node)


def class_fields(source: str, qualified_name: str) -> frozenset[str] | None:
    """Names that a class body annotates or defines; None if the module has no such class."""
    node = _find(ast.parse(source), qualified_name)
    if not isinstance(node, ast.ClassDef):
        return None
    names = {item.name for item in node.body if isinstance(item, _Function)}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            names.add(item.target.id)
    return frozenset(names)


def _find(module: ast.Module, qualified_name: str) -> ast.AST | None:
    body: list[ast.stmt] = module.body
    found: ast.AST | None = None
    for name in qualified_name.split("."):
        found = next((item for item in body if getattr(item, "name", None) == name), None)
        body = getattr(found, "body", [])
    return found


def _facts(source: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> FunctionFacts:
    given = node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    names += [given.vararg.arg] if given.vararg else []
    names += [argument.arg for argument in given.kwonlyargs]
    names += [given.kwarg.arg] if given.kwarg else []
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    text = "\n".join(line.rstrip() for line in textwrap.dedent("\n".join(lines)).splitlines())
    return FunctionFacts(tuple(names), hashlib.sha256(text.encode()).hexdigest()[:16])
