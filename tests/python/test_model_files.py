"""The models of a cache: there before they are needed, and never taken for what they are not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caches import Interruption, assert_holds
from compact_caches import (
    COMPACT,
    SEQUENCES,
    assert_holds_its_files_only,
    model_files,
    train_early,
    write_compact,
)
from damage import damage, shard
from test_plain_files import NOT_A_FILE

import sparselogits as sl
from sparselogits.limits import MAX_MODEL_BYTES
from sparselogits.manifest import read_manifest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve sequences in a training shard and others, all of one model."""
    train_early(monkeypatch)
    write_compact(tmp_path / "c", SEQUENCES, shard_bytes=10_000)
    assert len(read_manifest(tmp_path / "c").shards) > 2
    return tmp_path / "c"


def the_model(cache: Path) -> Path:
    (file,) = model_files(cache)
    return file


def swap(file: Path) -> None:
    """Another sound model under its name."""
    other = sl.train_model(file.parent, num_classes=1, max_positions=500)
    assert other.file_name != file.name
    file.write_bytes(other.to_bytes())


def grow(file: Path) -> None:
    os.truncate(file, MAX_MODEL_BYTES + 1)


BROKEN: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "missing": (lambda file: file.unlink(), "No such file", None),
    "empty": (
        lambda file: file.write_bytes(b""),
        "not the one that the file is named by",
        "digest",
    ),
    "cut off": (lambda file: os.truncate(file, 50), "is named by", "digest"),
    "flipped": (lambda file: damage(file, 0.5), "is named by", "digest"),
    "another model": (swap, "is named by", "digest"),
    "too long": (grow, "is longer than 67108864 bytes", "header"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_model_is_named_with_a_shard_that_needs_it(cache: Path, kind: str) -> None:
    file = the_model(cache)
    breaks, message, field = BROKEN[kind]
    breaks(file)
    with pytest.raises(sl.SparseLogitsError, match=message) as caught:
        sl.open(cache)
    assert "shard-000000.slc needs it" in str(caught.value)
    assert file.name in str(caught.value)
    assert getattr(caught.value, "field", None) == field
    with pytest.raises(sl.SparseLogitsError, match=file.name):
        sl.CacheWriter(cache, COMPACT, resume=True)


@pytest.mark.parametrize("kind", BROKEN)
def test_verify_blames_the_model_for_all_sequences_that_need_it(cache: Path, kind: str) -> None:
    file = the_model(cache)
    BROKEN[kind][0](file)
    report = sl.verify(cache, keep_going=True)
    shards = read_manifest(cache).shards
    assert [fault.path for fault in report.faults] == [str(file)] * len(shards)
    assert report.faults[0].first_sequence == 0
    assert report.faults[-1].last_sequence == len(SEQUENCES)
    for fault, row in zip(report.faults, shards, strict=True):
        assert fault.last_sequence - fault.first_sequence == row.sequences
        assert f"{row.file} needs it" in fault.reason
    with pytest.raises(sl.SparseLogitsError, match=file.name):
        sl.verify(cache)


def test_verify_reports_a_broken_model_that_no_shard_needs(cache: Path) -> None:
    other = sl.train_model(cache, num_classes=1, max_positions=500)
    rewrite(cache, lambda manifest: manifest["models"].append(row_of(other)))
    assert other.file_name != the_model(cache).name
    (fault,) = sl.verify(cache, keep_going=True).faults
    assert (fault.path, fault.concerns) == (str(cache / other.file_name), "")
    other.save(cache / other.file_name)
    assert sl.verify(cache).models == 2


@pytest.mark.parametrize("kind", NOT_A_FILE)
def test_what_is_no_file_is_not_opened(cache: Path, kind: str) -> None:
    file = the_model(cache)
    (cache.parent / "c2").mkdir()
    file.rename(cache.parent / "c2" / file.name)
    make, message = NOT_A_FILE[kind]
    make(file)
    with pytest.raises(sl.CorruptionError, match=message) as caught:
        sl.open(cache)
    assert caught.value.path == str(file)


def test_a_link_that_stays_inside_is_followed(cache: Path) -> None:
    file = the_model(cache)
    file.rename(cache / "real")
    file.symlink_to("real")
    assert_holds(sl.open(cache), SEQUENCES)
    assert sl.verify(cache).ok
    assert sl.merge([cache], cache.parent / "out").models == 1
    assert not the_model(cache.parent / "out").is_symlink()


def rewrite(cache: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edits the manifest, whose checksum then goes."""
    manifest = json.loads((cache / "manifest.json").read_text())
    del manifest["crc32c"]
    change(manifest)
    (cache / "manifest.json").write_text(json.dumps(manifest))


def row_of(model: sl.CodecModel) -> dict[str, Any]:
    return {"file": model.file_name, "bytes": model.nbytes}


def test_a_manifest_that_lists_no_model_does_not_hide_that_shards_need_one(cache: Path) -> None:
    name = the_model(cache).name
    for change in (lambda m: m.pop("models"), lambda m: m.update(models=[])):
        if "models" in json.loads((cache / "manifest.json").read_text()):
            rewrite(cache, change)
        with pytest.raises(
            sl.CorruptionError, match=f"codec model {name}, which is missing"
        ) as caught:
            sl.open(cache)
        assert caught.value.path == str(shard(cache, 0))
        assert caught.value.field == "model_digest"
        assert sl.verify(cache, keep_going=True).faults[0].path == str(shard(cache, 0))


def test_a_length_other_than_the_stated_one_is_refused(cache: Path) -> None:
    rewrite(cache, lambda manifest: manifest["models"][0].update(bytes=1))
    with pytest.raises(sl.CorruptionError, match="but 1 in the manifest") as caught:
        sl.open(cache)
    assert caught.value.path == str(the_model(cache))


def write_and_die(path: Path, **options: Any) -> None:
    """Goes on in a cache with a sequence of no positions, and raises Interruption."""
    with sl.CacheWriter(path, COMPACT, **options) as writer:
        writer.append([], [0], [], [])
        raise Interruption


@pytest.mark.parametrize("has_manifest", [True, False])
def test_recovery_keeps_needed_models_and_removes_others(cache: Path, has_manifest: bool) -> None:
    with pytest.raises(Interruption):
        write_and_die(cache, resume=True)
    before = the_model(cache)
    if not has_manifest:
        (cache / "manifest.json").unlink()
    (cache / "model-00000000000000aa.slm").write_bytes(b"no shard needs this")
    (cache / ".shard-000009.slc.recoding.tmp").write_bytes(b"half a shard")
    report = sl.recover(cache)
    assert report.total_sequences == len(SEQUENCES) + 1
    assert model_files(cache) == [before]
    assert_holds_its_files_only(cache)
    assert sl.verify(cache).ok


@pytest.mark.parametrize("kind", BROKEN)
def test_recovery_without_its_model_loses_nothing(cache: Path, kind: str) -> None:
    file = the_model(cache)
    data = file.read_bytes()
    (cache / "manifest.json").unlink()
    shards = {path.name: path.read_bytes() for path in cache.glob("shard-*")}
    BROKEN[kind][0](file) if kind != "another model" else damage(file, 0.9)
    with pytest.raises(sl.FormatError, match=file.name):
        sl.recover(cache)
    assert {path.name: path.read_bytes() for path in cache.glob("shard-*")} == shards
    assert not (cache / "manifest.json").exists()
    if file.exists():
        os.truncate(file, len(data))
    file.write_bytes(data)
    assert sl.recover(cache).sequences == len(SEQUENCES)
    assert_holds(sl.open(cache), SEQUENCES)


def interrupt(path: Path, model: sl.CodecModel) -> None:
    with sl.CacheWriter(path, COMPACT, model=model):
        raise Interruption


def test_an_unused_model_does_not_stay(tmp_path: Path, cache: Path) -> None:
    model = sl.open(cache).models[0]
    with sl.CacheWriter(tmp_path / "empty", COMPACT, model=model):
        assert [file.name for file in model_files(tmp_path / "empty")] == [model.file_name]
    assert sl.open(tmp_path / "empty").models == ()
    assert_holds_its_files_only(tmp_path / "empty")
    with pytest.raises(Interruption):
        interrupt(tmp_path / "dead", model)
    assert list((tmp_path / "dead").iterdir()) == []


def test_models_are_not_written_through_links(tmp_path: Path, cache: Path) -> None:
    model = sl.open(cache).models[0]
    (tmp_path / "precious").write_text("data")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / model.file_name).symlink_to(tmp_path / "precious")
    write_compact(tmp_path / "new", SEQUENCES[:2], model=model)
    assert (tmp_path / "precious").read_text() == "data"
    assert_holds(sl.open(tmp_path / "new"), SEQUENCES[:2])
