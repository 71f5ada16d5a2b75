"""A small cache that the verbs are run on, and the way to run them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sparselogits as sl
from sparselogits.cli import main

sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not
import cli_cache


@dataclass(frozen=True)
class Outcome:
    """What a run of the command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command in this process."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def pristine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "cache"
    metadata = {"teacher": "none: made by hand"}
    with sl.CacheWriter(path, cli_cache.config(), metadata=metadata) as writer:
        cli_cache.append_all(writer)
    return path


@pytest.fixture
def cache(pristine_cache: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine_cache, tmp_path / "cache"))
