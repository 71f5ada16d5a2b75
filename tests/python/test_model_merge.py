"""Models of caches that are merged or repacked: all that are needed, each once."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import CONFIG, Interruption, assert_holds, write
from compact_caches import (
    COMPACT,
    SEQUENCES,
    assert_holds_its_files_only,
    model_files,
    train_early,
    write_compact,
)
from random_caches import content

import sparselogits as sl
from sparselogits import repack_writer


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    train_early(monkeypatch)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write(tmp_path / "packed", SEQUENCES)
    return tmp_path / "packed"


@pytest.mark.parametrize("links", [True, False])
def test_caches_of_different_models_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    a = write_compact(tmp_path / "a", SEQUENCES[:5])
    b = write_compact(tmp_path / "b", SEQUENCES[5:10])
    c = write_compact(tmp_path / "c", SEQUENCES[10:11], model=a.models[0])
    d = write_compact(tmp_path / "d", SEQUENCES[11:], dataclasses.replace(COMPACT))
    with monkeypatch.context() as patch:
        if not links:
            patch.setattr(os, "link", refuse)
        report = sl.merge([cache.path for cache in (a, b, c, d)], tmp_path / "out")
    cache = sl.open(tmp_path / "out")
    assert (report.models, report.linked) == (2 + len(d.models), 4 * links)
    assert set(cache.models) == {*a.models, *b.models, *d.models}
    assert report.bytes == cache.nbytes
    assert_holds(cache, SEQUENCES)
    assert sl.verify(tmp_path / "out").ok
    assert_holds_its_files_only(tmp_path / "out")
    for path in model_files(tmp_path / "out"):
        assert (path.stat().st_nlink > 1) is links
    again = sl.merge([tmp_path / "out"], tmp_path / "again")
    assert again.models == report.models
    assert_holds(sl.open(tmp_path / "again"), SEQUENCES)


def test_a_merge_without_a_model_is_refused_by_name(tmp_path: Path) -> None:
    a = write_compact(tmp_path / "a", SEQUENCES[:6])
    write_compact(tmp_path / "b", SEQUENCES[6:])
    (file,) = model_files(tmp_path / "b")
    file.unlink()
    with pytest.raises(sl.CacheIOError, match=f"shard-000000.slc needs it.*{file.name}"):
        sl.merge([a.path, tmp_path / "b"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_two_models_of_one_digest_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody meets this by chance: 64 bits. Who makes one on purpose gets an error."""
    a = write_compact(tmp_path / "a", SEQUENCES[:6])
    write_compact(tmp_path / "b", SEQUENCES[6:], model=a.models[0])

    class Forged:
        file_name = a.models[0].file_name

        def to_bytes(self) -> bytes:
            return b"another"

    loaded = iter([[a.models[0].core], [Forged()]])
    module = sys.modules["sparselogits.merge"]  # the package has the function of that name
    monkeypatch.setattr(module, "sound_models", lambda *_: next(loaded))
    monkeypatch.setattr(module, "ordered_shards", lambda *_: [])
    with pytest.raises(sl.MismatchError, match="different models of the same digest"):
        sl.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


@pytest.mark.parametrize("kind", ["counts", "weights"])
@pytest.mark.parametrize("tokens", [True, False])
def test_repacking_there_and_back_loses_nothing(tmp_path: Path, kind: str, tokens: bool) -> None:
    config = dataclasses.replace(CONFIG, value_kind=kind, store_tokens=tokens)
    with sl.CacheWriter(tmp_path / "source", config) as writer:
        for s in SEQUENCES:
            values: Any = {kind: s.counts if kind == "counts" else s.counts / 20}
            writer.append(s.input_ids, s.offsets, s.token_ids, sequence_id=s.sequence_id, **values)
    source = sl.open(tmp_path / "source")
    report = sl.repack(tmp_path / "source", tmp_path / "compact", codec="compact")
    compact = sl.open(tmp_path / "compact")
    assert (report.models, report.bytes) == (1, compact.nbytes)
    assert compact.nbytes < source.nbytes
    assert compact.models[0].codes_tokens is tokens
    back = sl.repack(tmp_path / "compact", tmp_path / "back", codec="packed")
    assert back.models == 0
    assert model_files(tmp_path / "back") == []
    assert content(compact) == content(source) == content(sl.open(tmp_path / "back"))
    for name in ("compact", "back"):
        assert sl.verify(tmp_path / name).ok
        assert_holds_its_files_only(tmp_path / name)


def test_a_repack_trains_on_all_of_its_source(packed: Path, tmp_path: Path) -> None:
    """Not on the first positions alone, as a writer does that knows no others."""
    compact = write_compact(tmp_path / "c", SEQUENCES)
    sl.repack(tmp_path / "c", tmp_path / "out")
    cache = sl.open(tmp_path / "out")
    assert cache.models != compact.models
    expected = sl.train_model(packed, expected_positions=cache.num_positions)
    assert cache.models == (expected,)
    assert_holds(cache, SEQUENCES)


def test_a_repack_takes_a_model(packed: Path, tmp_path: Path) -> None:
    model = sl.train_model(packed, num_classes=2)
    model.save(tmp_path / "m.slm")
    for number, given in enumerate((model, tmp_path / "m.slm")):
        out = tmp_path / f"{number}"
        assert sl.repack(packed, out, codec="compact", model=given).models == 1
        assert sl.open(out).models == (model,)
        assert_holds(sl.open(out), SEQUENCES)
    other = sl.train_model(packed, store_tokens=False)
    with pytest.raises(sl.MismatchError, match="store_tokens"):
        sl.repack(packed, tmp_path / "out", codec="compact", model=other)
    assert not (tmp_path / "out").exists()


def test_a_small_source_needs_no_model(tmp_path: Path) -> None:
    write(tmp_path / "small", SEQUENCES[:0])
    assert sl.repack(tmp_path / "small", tmp_path / "out", codec="compact").models == 0
    assert_holds_its_files_only(tmp_path / "out")


def test_tokens_that_are_added_teach_too(tmp_path: Path) -> None:
    bare = dataclasses.replace(CONFIG, store_tokens=False)
    with sl.CacheWriter(tmp_path / "bare", bare) as writer:
        for sequence in SEQUENCES:
            sequence.append_to(writer)
    chosen = [SEQUENCES[i] for i in (3, 1, 8, 11, 0, 5, 7)]
    sl.repack(
        tmp_path / "bare",
        tmp_path / "out",
        codec="compact",
        store_tokens=True,
        input_ids=[sequence.input_ids for sequence in SEQUENCES],
        sequence_ids=[sequence.sequence_id for sequence in chosen],
    )
    cache = sl.open(tmp_path / "out")
    assert cache.models[0].codes_tokens
    assert_holds(cache, chosen)
    with_tokens = write(tmp_path / "tokens", chosen)
    assert cache.models == (sl.train_model(with_tokens),)


def interrupt(source: Path, target: Path, **options: Any) -> None:
    """A repack that fails after nine sequences."""

    def fail(done: int, _total: int) -> None:
        if done == 3600:
            raise Interruption("power")

    with pytest.raises(Interruption):
        sl.repack(source, target, progress=fail, codec="compact", **options)


def test_an_interrupted_repack_goes_on_with_its_model(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repack_writer, "BATCH_BYTES", 1)
    monkeypatch.setattr(repack_writer, "COMMIT_BYTES", 1)
    monkeypatch.setattr("sparselogits.repack_training.TRAINING_POSITIONS", 2000)
    model = sl.train_model(packed, num_classes=2)
    interrupt(packed, tmp_path / "out")
    plan = json.loads((tmp_path / ".out.repacking" / "plan.json").read_text())
    assert plan["model"] == "train"
    with pytest.raises(sl.InvalidArgumentError, match=f"its model is 'train', not '{model.digest}"):
        sl.repack(packed, tmp_path / "out", codec="compact", model=model)
    (before,) = model_files(tmp_path / ".out.repacking" / "cache")
    assert sl.repack(packed, tmp_path / "out", codec="compact").resumed == 9
    assert [file.name for file in model_files(tmp_path / "out")] == [before.name]
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)
    interrupt(packed, tmp_path / "given", model=model)
    with pytest.raises(
        sl.InvalidArgumentError, match=f"its model is '{model.digest}', not 'train'"
    ):
        sl.repack(packed, tmp_path / "given", codec="compact")
    assert sl.repack(packed, tmp_path / "given", codec="compact", model=model).resumed == 9
    assert sl.open(tmp_path / "given").models == (model,)
    np.testing.assert_array_equal(
        sl.open(tmp_path / "given").fingerprints, sl.open(packed).fingerprints
    )
