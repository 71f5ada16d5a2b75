"""Fixtures: a stand-in vLLM in a folder, and the same imported with the plugin switched on."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from sparselogits.integrations.vllm import plugin, relied_on
from sparselogits.integrations.vllm.source import class_fields, function_facts

STAND_IN = Path(__file__).parent / "stand_in"


@pytest.fixture
def vllm_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed stand-in, whose fingerprints are the expected ones."""
    root = tmp_path / "site"
    shutil.copytree(STAND_IN, root, ignore=shutil.ignore_patterns("__pycache__"))
    set_version(root, relied_on.VLLM_VERSION)
    for function in relied_on.NEEDED:
        add_function(root, function.module, function.name, function.parameters.split())
    for fields in relied_on.FIELDS:
        add_class(root, fields.module, fields.name, fields.fields)
    for table in ("PATCHED", "NEEDED"):
        functions = getattr(relied_on, table)
        monkeypatch.setattr(relied_on, table, tuple(with_fingerprint(root, f) for f in functions))
    monkeypatch.syspath_prepend(root)
    return root


@pytest.fixture
def toy_vllm(vllm_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`import vllm`, with the plugin in it."""
    monkeypatch.setenv(plugin.ENABLE_VARIABLE, "1")
    forget_vllm()
    plugin.register()
    yield importlib.import_module("vllm")
    forget_vllm()


def forget_vllm() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


def set_version(root: Path, version: str) -> None:
    for old in root.glob("vllm-*.dist-info"):
        shutil.rmtree(old)
    facts = root / f"vllm-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def module_file(root: Path, module: str) -> Path:
    """The file of a module, with its packages made where they are missing."""
    place = root.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def add_function(root: Path, module: str, name: str, parameters: list[str]) -> None:
    """Writes what the stand-in has no behaviour for: a class with one method, or more of it."""
    path = module_file(root, module)
    if function_facts(path.read_text(), name) is None:
        owner, _, method = name.rpartition(".")
        add_to_class(path, owner, f"    def {method}({', '.join(parameters)}): ...\n")


def add_class(root: Path, module: str, name: str, fields: tuple[str, ...]) -> None:
    path = module_file(root, module)
    there = class_fields(path.read_text(), name) or frozenset()
    missing = [field for field in fields if field not in there]
    add_to_class(path, name, "".join(f"    {field}: object\n" for field in missing))


def add_to_class(path: Path, owner: str, members: str) -> None:
    head = f"class {owner}:\n"
    text = path.read_text()
    if not members:
        return
    if head not in text:
        text += head
    path.write_text(text.replace(head, head + members))


def with_fingerprint(root: Path, function: relied_on.ReliedFunction) -> relied_on.ReliedFunction:
    facts = function_facts(module_file(root, function.module).read_text(), function.name)
    assert facts is not None, function.name
    return replace(function, fingerprint=facts.fingerprint)
