"""Puts the helpers of these tests and of those in tests/python on their import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

from remote_caches import SEQUENCES, Remote, make_remote  # noqa: E402

from sparselogits.remote import remote_files  # noqa: E402


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests wait a hundredth of the time before another attempt."""
    monkeypatch.setattr(remote_files, "FIRST_DELAY", 0.001)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local cache of 12 shards, one sequence in each."""
    return make_remote(tmp_path_factory.mktemp("remote") / "c", SEQUENCES)


@pytest.fixture
def remote(made: Path, tmp_path: Path) -> Iterator[Remote]:
    """That cache at a memory:// URL, with an empty local directory."""
    filesystem = fsspec.filesystem("memory")
    for path in made.iterdir():
        filesystem.pipe(f"/bucket/c/{path.name}", path.read_bytes())
    yield Remote("memory://bucket/c", made, tmp_path / "local")
    filesystem.rm("/bucket", recursive=True)
