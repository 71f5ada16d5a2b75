"""`repack`: the same samples in other clothes, or a refusal that says why; nothing in between."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import (
    CONFIG,
    Interruption,
    assert_holds,
    random_sequence,
    write,
    write_and_fail,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from random_caches import Recipe, content, recipes, snapshot

import sparselogits as sl
from sparselogits import repack_writer

SCRIPT = Path(__file__).with_name("restart_script.py")
GOLDEN = Path(__file__).resolve().parents[2] / "formats" / "golden" / "v1" / "invalid"
SEQUENCES = [random_sequence(i, 100) for i in range(12)]
SHUFFLED = [SEQUENCES[i] for i in np.random.default_rng(0).permutation(12)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Twelve sequences of no order in two shards or more."""
    write(tmp_path / "source", SHUFFLED, shard_bytes=8_000)
    return tmp_path / "source"


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sequence a batch, a commit after each."""
    monkeypatch.setattr(repack_writer, "BATCH_BYTES", 1)
    monkeypatch.setattr(repack_writer, "COMMIT_BYTES", 1)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def without_tokens(path: Path, sequences: list[Any] = SEQUENCES) -> Path:
    with sl.CacheWriter(path, dataclasses.replace(CONFIG, store_tokens=False)) as writer:
        for sequence in sequences:
            sequence.append_to(writer)
    return path


def test_a_plain_repack_keeps_everything(source: Path, tmp_path: Path) -> None:
    before = snapshot(source)
    report = sl.repack(source, tmp_path / "out")
    cache, old = sl.open(tmp_path / "out"), sl.open(source)
    assert_holds(cache, SHUFFLED)
    assert (cache.config, cache.metadata) == (old.config, old.metadata)
    np.testing.assert_array_equal(cache.fingerprints, old.fingerprints)
    assert sl.verify(tmp_path / "out").ok
    assert report == sl.RepackReport(
        path=str(tmp_path / "out"),
        shards=1,
        sequences=12,
        positions=1200,
        entries=old.num_entries,
        bytes=cache.nbytes,
        source_bytes=old.nbytes,
        left_out=0,
        resumed=0,
        complete=True,
    )
    assert snapshot(source) == before
    assert names(tmp_path) == ["out", "source"]


@given(
    recipe=recipes(),
    shard_bytes=st.sampled_from([1, 300, 1 << 30]),
    batch_bytes=st.sampled_from([1, 10_000, 32 << 20]),
    store_tokens=st.sampled_from([None, True, False]),
    order=st.sampled_from([None, "sequence_id"]),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_any_cache_comes_back_exactly(
    recipe: Recipe,
    shard_bytes: int,
    batch_bytes: int,
    store_tokens: bool | None,
    order: str | None,
    data: st.DataObject,
) -> None:
    ids = list(recipe.lengths)
    wanted = data.draw(st.none() | st.permutations(ids).map(lambda some: some[: len(ids) // 2 + 1]))
    adds = bool(store_tokens) and not recipe.config.store_tokens
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr(repack_writer, "BATCH_BYTES", batch_bytes)
        path = Path(directory)
        old = recipe.write(path / "source", ids)
        sl.repack(
            path / "source",
            path / "out",
            shard_bytes=shard_bytes,
            store_tokens=store_tokens,
            input_ids=[recipe.tokens(i) for i in ids] if adds else None,
            order=order,
            sequence_ids=wanted,
        )
        cache = sl.open(path / "out")
        expected = ids if wanted is None else wanted
        assert list(cache.sequence_ids) == (sorted(expected) if order else expected)
        assert sl.verify(path / "out").ok
        before = content(old, tokens=False)
        assert content(cache, tokens=False) == {i: before[i] for i in expected}
        stored = recipe.config.store_tokens if store_tokens is None else store_tokens
        assert cache.config == dataclasses.replace(old.config, store_tokens=stored)
        for read in cache:
            if stored:
                np.testing.assert_array_equal(read.input_ids, recipe.tokens(read.sequence_id))
            else:
                assert read.input_ids is None


def test_shards_and_order_are_as_asked(source: Path, tmp_path: Path) -> None:
    assert sl.repack(source, tmp_path / "one").shards == 1
    many = sl.repack(source, tmp_path / "many", shard_bytes=1, order="sequence_id")
    assert many.shards == 1  # they came in one batch
    assert_holds(sl.open(tmp_path / "many"), SEQUENCES)


def test_a_shard_ends_when_it_has_grown(source: Path, tmp_path: Path, small_steps: None) -> None:
    report = sl.repack(source, tmp_path / "out", shard_bytes=1)
    assert report.shards == 12
    assert_holds(sl.open(tmp_path / "out"), SHUFFLED)


def test_a_selection_comes_in_the_order_asked_for(source: Path, tmp_path: Path) -> None:
    report = sl.repack(source, tmp_path / "out", sequence_ids=iter([5, 3, 11]))
    assert (report.sequences, report.left_out) == (3, 9)
    assert_holds(sl.open(tmp_path / "out"), [SEQUENCES[i] for i in (5, 3, 11)])
    sl.repack(source, tmp_path / "set", sequence_ids={9, 2}, order="sequence_id")
    assert_holds(sl.open(tmp_path / "set"), [SEQUENCES[2], SEQUENCES[9]])
    assert sl.repack(source, tmp_path / "none", sequence_ids=[]).sequences == 0
    assert len(sl.open(tmp_path / "none")) == 0


def test_ids_between_those_of_the_cache_are_not_found(tmp_path: Path) -> None:
    write(tmp_path / "gaps", [SEQUENCES[5], SEQUENCES[1]])
    for wanted in (0, 3, 6):
        with pytest.raises(sl.SequenceNotFoundError, match=f"gaps has no sequence_id {wanted}$"):
            sl.repack(tmp_path / "gaps", tmp_path / "out", sequence_ids=[5, wanted, 1])


def test_damaged_sequences_are_dropped_by_leaving_them_out(tmp_path: Path) -> None:
    sequences = [random_sequence(i, 600) for i in range(9)]
    write(tmp_path / "damaged", sequences)
    shard = tmp_path / "damaged" / "shard-000000.slc"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    report = sl.verify(tmp_path / "damaged", keep_going=True)
    bad = {i for fault in report.faults for i in fault.sequence_ids}
    assert 0 < len(bad) < 9
    with pytest.raises(sl.CorruptionError) as caught:
        sl.repack(tmp_path / "damaged", tmp_path / "all")
    assert caught.value.path == str(shard)
    assert names(tmp_path) == ["damaged"]
    keep = [i for i in range(9) if i not in bad]
    report = sl.repack(tmp_path / "damaged", tmp_path / "sound", sequence_ids=keep)
    assert report.left_out == len(bad)
    write(tmp_path / "again", [sequences[i] for i in sorted(bad)])
    sl.merge([tmp_path / "sound", tmp_path / "again"], tmp_path / "whole")
    assert sl.verify(tmp_path / "whole").ok
    assert content(sl.open(tmp_path / "whole")).keys() == set(range(9))


def test_tokens_are_dropped_and_added_and_fingerprints_stay(source: Path, tmp_path: Path) -> None:
    prints = sl.open(source).fingerprints
    sl.repack(source, tmp_path / "without", store_tokens=False)
    without = sl.open(tmp_path / "without")
    np.testing.assert_array_equal(without.fingerprints, prints)
    assert without[0].input_ids is None
    sl.repack(tmp_path / "without", tmp_path / "still", order="sequence_id")
    still = sl.open(tmp_path / "still")
    assert still.fingerprints.tolist() == [sl.fingerprint_tokens(s.input_ids) for s in SEQUENCES]
    tokens = np.stack([sequence.input_ids for sequence in SHUFFLED])
    sl.repack(
        tmp_path / "without",
        tmp_path / "with",
        store_tokens=True,
        input_ids=tokens,
        order="sequence_id",
    )
    assert_holds(sl.open(tmp_path / "with"), SEQUENCES)
    assert sl.verify(tmp_path / "with").ok


def test_wrong_tokens_are_refused_by_the_first_sequence(tmp_path: Path) -> None:
    without_tokens(tmp_path / "source")
    tokens = [sequence.input_ids.copy() for sequence in SEQUENCES]
    tokens[3] = tokens[3][1:]
    tokens[7][0] ^= 1
    with pytest.raises(sl.FingerprintMismatchError) as caught:
        sl.repack(tmp_path / "source", tmp_path / "out", store_tokens=True, input_ids=tokens)
    assert str(caught.value).startswith(
        "sequence_id 3 (index 3): input_ids are not the tokens that the teacher read: "
    )
    assert names(tmp_path) == ["source"]


def test_tokens_that_cannot_be_are_refused(source: Path, tmp_path: Path) -> None:
    without_tokens(tmp_path / "bare")
    tokens: Any = [sequence.input_ids for sequence in SEQUENCES]

    def refused(match: str, cache: Path, **options: Any) -> None:
        with pytest.raises(sl.InvalidArgumentError, match=match):
            sl.repack(cache, tmp_path / "out", **options)

    bare = tmp_path / "bare"
    refused("store_tokens=True needs input_ids: .*bare stores no tokens", bare, store_tokens=True)
    refused("not for .*bare, which is to go on without", bare, input_ids=tokens)
    refused("not for .*source, which has its own", source, store_tokens=True, input_ids=tokens)
    refused("got 11 for 12 sequences", bare, store_tokens=True, input_ids=tokens[1:])
    refused("got list_iterator for 12", bare, store_tokens=True, input_ids=iter(tokens))
    tokens[4] = tokens[4].astype(float)
    refused(r"input_ids\[4\] must be integers", bare, store_tokens=True, input_ids=tokens)
    assert names(tmp_path) == ["bare", "source"]


@pytest.mark.parametrize("store_tokens", [True, False])
def test_stored_tokens_without_their_fingerprint_are_refused(
    tmp_path: Path, store_tokens: bool
) -> None:
    (tmp_path / "source").mkdir()
    shutil.copy(GOLDEN / "fingerprint_of_other_tokens.slc", tmp_path / "source/shard-000000.slc")
    sl.recover(tmp_path / "source")
    with pytest.raises(sl.CorruptionError, match="sequence_id 5: the stored tokens have") as caught:
        sl.repack(tmp_path / "source", tmp_path / "out", store_tokens=store_tokens)
    assert caught.value.field == "fingerprint"


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"model": "m.slm"}, sl.InvalidArgumentError, "model must be None for codec 'packed'"),
        ({"codec": "compact", "model": 3}, sl.InvalidArgumentError, "model must be a CodecModel"),
        ({"codec": "compact", "model": "nowhere.slm"}, sl.CacheIOError, "nowhere.slm"),
        ({"codec": "zip"}, sl.InvalidArgumentError, "codec must be one of"),
        ({"order": "length"}, sl.InvalidArgumentError, "order must be one of 'sequence_id'"),
        ({"store_tokens": 1}, sl.InvalidArgumentError, "store_tokens must be True or False"),
        ({"restart": 1}, sl.InvalidArgumentError, "restart must be True or False"),
        ({"shard_bytes": 0}, sl.InvalidArgumentError, "shard_bytes must be from 1 to 17179869184"),
        ({"sequence_ids": [3, 4, 3]}, sl.InvalidArgumentError, "sequence_ids has 3 twice"),
        ({"sequence_ids": [3.0]}, sl.InvalidArgumentError, "sequence_ids must be integers"),
        ({"sequence_ids": [-1]}, sl.InvalidArgumentError, "sequence_ids must be from 0 to 2"),
        ({"sequence_ids": [3, 99]}, sl.SequenceNotFoundError, "source has no sequence_id 99"),
        ({"metadata": {"a": 1}}, sl.InvalidArgumentError, "metadata must map str to str"),
        ({"metadata": {"teacher": "U"}}, sl.MismatchError, "is 'test', not 'U'"),
    ],
)
def test_wrong_arguments_are_refused_and_change_nothing(
    source: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        sl.repack(source, tmp_path / "out", **options)
    assert names(tmp_path) == ["source"]


def test_facts_are_added(source: Path, tmp_path: Path) -> None:
    sl.repack(source, tmp_path / "out", metadata={"note": "sorted", "teacher": "test"})
    assert sl.open(tmp_path / "out").metadata == {"teacher": "test", "note": "sorted"}


def test_places_that_cannot_be(source: Path, tmp_path: Path) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="source is inside"):
        sl.repack(source, source)
    with pytest.raises(sl.InvalidArgumentError, match="out is inside"):
        sl.repack(source, source / "out")
    with pytest.raises(sl.InvalidArgumentError, match="is not empty"):
        sl.repack(source, tmp_path)
    with pytest.raises(sl.CacheIOError, match="nowhere"):
        sl.repack(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "dead", SEQUENCES)
    with pytest.raises(sl.InvalidArgumentError, match=r"dead is unfinished: .*sl\.recover"):
        sl.repack(tmp_path / "dead", tmp_path / "out")
    assert names(tmp_path) == ["dead", "source"]


def test_an_incomplete_source_gives_an_incomplete_cache(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "dead", SEQUENCES)
    sl.recover(tmp_path / "dead")
    assert not sl.repack(tmp_path / "dead", tmp_path / "out").complete
    assert not sl.open(tmp_path / "out").complete
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)
    assert sl.verify(tmp_path / "out").ok


def interrupt(source: Path, target: Path, **options: Any) -> None:
    """A repack that fails after five sequences."""

    def fail(done: int, _total: int) -> None:
        if done == 500:
            raise Interruption("power")

    with pytest.raises(Interruption):
        sl.repack(source, target, progress=fail, **options)


@pytest.mark.usefixtures("small_steps")
def test_an_interrupted_repack_goes_on(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = snapshot(source)
    caplog.set_level(logging.WARNING, "sparselogits")
    interrupt(source, tmp_path / "out")
    assert names(tmp_path) == [".out.repacking", "source"]
    assert f"Interruption ended the repacking into {tmp_path}/out" in caplog.text
    assert "restart=True" in caplog.text
    seen: list[tuple[int, int]] = []
    report = sl.repack(source, tmp_path / "out", progress=lambda *step: seen.append(step))
    assert report.resumed == 5
    assert seen == [(100 * n, 1200) for n in range(6, 13)]
    assert_holds(sl.open(tmp_path / "out"), SHUFFLED)
    assert sl.verify(tmp_path / "out").ok
    assert names(tmp_path) == ["out", "source"]
    assert snapshot(source) == before


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(
    "options, name",
    [
        ({"order": "sequence_id"}, "sequences_sha256"),
        ({"sequence_ids": [1]}, "sequences"),
        ({"store_tokens": False}, "config"),
        ({"shard_bytes": 7}, "shard_bytes"),
        ({"metadata": {"a": "b"}}, "metadata"),
    ],
)
def test_another_plan_does_not_go_on(
    source: Path, tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    interrupt(source, tmp_path / "out")
    with pytest.raises(sl.InvalidArgumentError) as caught:
        sl.repack(source, tmp_path / "out", **options)
    text = str(caught.value)
    assert text.startswith(
        f"{tmp_path}/.out.repacking holds an unfinished repack of another plan: its {name} is "
    )
    assert text.endswith("or begin anew with restart=True (--restart), which removes it")
    assert sl.repack(source, tmp_path / "out", **options, restart=True).resumed == 0
    assert names(tmp_path) == ["out", "source"]


@pytest.mark.usefixtures("small_steps")
def test_another_source_does_not_go_on(source: Path, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "out")
    write(tmp_path / "other", SEQUENCES)
    with pytest.raises(sl.InvalidArgumentError, match="its source_digest is"):
        sl.repack(tmp_path / "other", tmp_path / "out")
    (tmp_path / ".out.repacking" / "plan.json").write_bytes(b"\xff{")
    with pytest.raises(sl.InvalidArgumentError, match="its source_digest is None"):
        sl.repack(source, tmp_path / "out")


def test_a_plan_without_any_work_binds_nobody(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.repacking").mkdir()
    (tmp_path / ".out.repacking" / "plan.json").write_text("{}")
    assert sl.repack(source, tmp_path / "out").sequences == 12
    assert names(tmp_path) == ["out", "source"]


@pytest.mark.usefixtures("small_steps")
def test_sequences_that_nobody_planned_do_not_go_on(source: Path, tmp_path: Path) -> None:
    interrupt(source, tmp_path / "out")
    shutil.rmtree(tmp_path / ".out.repacking" / "cache")
    write(tmp_path / ".out.repacking" / "cache", SEQUENCES)
    with pytest.raises(sl.InvalidArgumentError, match="other sequences than this repack would"):
        sl.repack(source, tmp_path / "out")
    assert sl.repack(source, tmp_path / "out", restart=True).resumed == 0


def test_a_result_that_is_not_what_was_asked_for_does_not_appear(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = repack_writer.ShardSeries.append

    def swapped(self: Any, batch: Any) -> None:
        append(self, dataclasses.replace(batch, sequence_ids=batch.sequence_ids[::-1].copy()))

    monkeypatch.setattr(repack_writer.ShardSeries, "append", swapped)
    with pytest.raises(sl.CorruptionError, match="is not what was written") as caught:
        sl.repack(source, tmp_path / "out")
    assert caught.value.field == "sequence_id"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_steps")
def test_a_second_repack_into_the_same_target_is_refused(source: Path, tmp_path: Path) -> None:
    refused: list[str] = []

    def meanwhile(*_: int) -> None:
        with pytest.raises(sl.CacheIOError) as caught:
            sl.repack(source, tmp_path / "out", restart=True)
        refused.append(str(caught.value))

    sl.repack(source, tmp_path / "out", progress=meanwhile)
    assert len(refused) == 12
    assert f"another call is repacking into {tmp_path}/out" in refused[0]
    assert_holds(sl.open(tmp_path / "out"), SHUFFLED)


@pytest.mark.parametrize(
    "moment", ["step:1", "step:5", "step:12", "manifest", "publish", "published"]
)
def test_a_killed_repack_goes_on_after_its_last_commit(
    source: Path, tmp_path: Path, moment: str
) -> None:
    before = snapshot(source)

    def run(moment: str) -> int:
        command = [
            sys.executable,
            str(SCRIPT),
            "repack",
            moment,
            str(tmp_path / "out"),
            str(source),
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert run(moment) == -9
    assert snapshot(source) == before
    if moment != "published":
        assert names(tmp_path) == [".out.repacking", "source"]
        plan = json.loads((tmp_path / ".out.repacking" / "plan.json").read_bytes())
        assert plan["sequences"] == 12
        options: dict[str, Any] = {"shard_bytes": 20_000, "order": "sequence_id"}
        report = sl.repack(source, tmp_path / "out", **options)
        least = {"step:1": 1, "step:5": 5}.get(moment, 11)
        assert report.resumed >= least
        assert names(tmp_path) == ["out", "source"]
    assert_holds(sl.open(tmp_path / "out"), SEQUENCES)
    assert sl.open(tmp_path / "out").complete
    assert sl.verify(tmp_path / "out").ok
    assert snapshot(source) == before
