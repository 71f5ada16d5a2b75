"""A writer killed at any step of its training shard has lost nothing and doubled nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from caches import assert_holds
from compact_caches import (
    COMPACT,
    SEQUENCES,
    assert_holds_its_files_only,
    train_early,
    write_compact,
)

import sparselogits as sl

SCRIPT = Path(__file__).with_name("training_crash_script.py")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a writer left that was killed at its k-th step; the last one was not."""
    directory = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, str(SCRIPT), str(directory)], check=True)
    caches = sorted((p for p in directory.iterdir() if p.is_dir()), key=lambda p: int(p.name))
    assert len(caches) > 30
    return caches


def test_every_kind_of_left_over_is_met(killed: list[Path]) -> None:
    """The steps do what these tests are about; else they would show nothing."""
    kinds = [
        "shard-000000.slc.partial",
        "shard-000000.slc",
        ".shard-000000.slc.recoding.tmp",
        ".shard-000000.slc.recoded.tmp",
        ".model-*.slm.*.tmp",
        "model-*.slm",
        "shard-000001.slc.partial",
        "manifest.json",
    ]
    for kind in kinds:
        assert any(list(path.glob(kind)) for path in killed[:-1]), kind
    both = [list(path.glob("model-*.slm")) and list(path.glob(".*recoded.tmp")) for path in killed]
    assert any(both)  # a model that no shard needs yet


def test_recovery_and_resuming_after_a_kill_at_any_step(
    killed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_early(monkeypatch)
    compact = 0
    for path in killed:
        flushed = int(path.with_suffix(".flushed").read_text())
        sl.recover(path)
        cache = sl.open(path)
        assert flushed <= len(cache)
        assert_holds(cache, SEQUENCES[: len(cache)])
        assert sl.verify(path).ok
        assert_holds_its_files_only(path)
        again = cache.digest
        sl.recover(path)
        assert sl.open(path).digest == again
        compact += len(cache.models)
        with sl.CacheWriter(path, COMPACT, resume=True) as writer:
            for sequence in SEQUENCES[writer.num_sequences :]:
                sequence.append_to(writer)
        assert_holds(sl.open(path), SEQUENCES)
        assert sl.verify(path).ok
        assert_holds_its_files_only(path)
    assert 0 < compact < len(killed)


def test_resuming_removes_what_dead_writers_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_early(monkeypatch)
    write_compact(tmp_path / "c", SEQUENCES[:7])
    (tmp_path / "c" / ".shard-000002.slc.recoded.tmp").write_bytes(b"half a shard")
    (tmp_path / "c" / ".model-0000000000000001.slm.1.tmp").write_bytes(b"half a model")
    (tmp_path / "c" / "model-0000000000000001.slm").write_bytes(b"of a dead writer")
    with sl.CacheWriter(tmp_path / "c", COMPACT, resume=True) as writer:
        for sequence in SEQUENCES[7:]:
            sequence.append_to(writer)
    assert_holds(sl.open(tmp_path / "c"), SEQUENCES)
    assert_holds_its_files_only(tmp_path / "c")
