"""`merge(rounds="add")`: what is no sample together is refused, with a reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from caches import CONFIG
from round_caches import SYSTEMATIC, write

import sparselogits as sl
from sparselogits.manifest import read_manifest


@pytest.mark.parametrize(
    "config, of_a, of_b, message",
    [
        (SYSTEMATIC, {"seed": "7"}, {"seed": "7"}, "systematic_offset 0.0, as .*a has: the same"),
        (
            SYSTEMATIC,
            {"seed": "7"},
            {"seed": "8", "systematic_offset": "0.5"},
            r"metadata\['seed'\] of .*a is 7, that of .*b 8: systematic",
        ),
        (
            SYSTEMATIC,
            {"seed": "7"},
            {"seed": "7", "systematic_offset": "0.25"},
            r"offsets 0\.0,0\.25 are not o \+ m/2, .* they would be 0\.0,0\.5",
        ),
        (SYSTEMATIC, {"seed": "7"}, {"systematic_offset": "0.5"}, "b has no 'seed', without which"),
        (SYSTEMATIC, {"seed": "x"}, {"seed": "x"}, r"metadata\['seed'\] of .*a is 'x'"),
        (
            SYSTEMATIC,
            {"seed": "7"},
            {"seed": "7", "systematic_offset": "1.5"},
            "offset of .*b is '1.5': it must be from 0 to below 1",
        ),
        (
            SYSTEMATIC,
            {"seed": "7"},
            {"seed": "7", "systematic_offset": "half"},
            "offset of .*b is 'half'",
        ),
        (
            CONFIG,
            {"seed": "7"},
            {"seed": "7"},
            "same seed as .*a, 7: multinomial draws of one seed",
        ),
        (CONFIG, {}, {"seed": "7"}, "a has no 'seed'"),
        (
            dataclasses.replace(CONFIG, sampler="stratified"),
            {"seed": "7"},
            {"seed": "8"},
            "stratified draws, which rounds='add' refuses: two draws in each stratum",
        ),
        (
            dataclasses.replace(CONFIG, sampler="gumbel"),
            {"seed": "7"},
            {"seed": "8"},
            "gumbel draws, which rounds='add' refuses: only multinomial and systematic",
        ),
    ],
)
def test_draws_that_are_no_sample_together_are_refused(
    tmp_path: Path, config: sl.CacheConfig, of_a: Any, of_b: Any, message: str
) -> None:
    a = write(tmp_path / "a", of_a, config=config)
    b = write(tmp_path / "b", of_b, config=config, draws=1)
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.merge([a, b], tmp_path / "out", rounds="add")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_systematic_draws_of_different_rounds_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"seed": "7"})
    more = dataclasses.replace(SYSTEMATIC, rounds=21)
    b = write(tmp_path / "b", {"seed": "7", "systematic_offset": "0.5"}, config=more)
    with pytest.raises(sl.InvalidArgumentError, match=r"only with equal rounds, got \[20, 21\]"):
        sl.merge([a, b], tmp_path / "out", rounds="add")


def test_weights_do_not_add_up(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, value_kind="weights")
    for name, seed in (("a", "1"), ("b", "2")):
        with sl.CacheWriter(tmp_path / name, config, {"seed": seed}) as writer:
            writer.append([1], [0, 1], [5], weights=[1.0])
    with pytest.raises(sl.InvalidArgumentError, match="a is a weights cache: only counts add up"):
        sl.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", rounds="add")


def test_more_rounds_than_the_format_has_are_refused(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, rounds=40_000)
    paths = [tmp_path / "a", tmp_path / "b"]
    for seed, path in enumerate(paths):
        with sl.CacheWriter(path, config, {"seed": str(seed)}) as writer:
            writer.append([1], [0, 1], [5], [40_000])
    with pytest.raises(sl.InvalidArgumentError, match="add up to 80000: the limit is 65535"):
        sl.merge(paths, tmp_path / "out", rounds="add")


def test_caches_of_other_sequences_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"seed": "1"}, config=CONFIG)
    for name, ids in (("fewer", range(5)), ("more", range(7)), ("none", range(0))):
        write(tmp_path / name, {"seed": "2"}, config=CONFIG, ids=ids)
    for name, message in (
        ("fewer", "fewer has no sequence_id 5, which .*a has"),
        ("more", "a has no sequence_id 6, which .*more has"),
        ("none", "none has no sequence_id 0, which .*a has"),
    ):
        with pytest.raises(sl.MismatchError, match=message):
            sl.merge([a, tmp_path / name], tmp_path / "out", rounds="add")


@pytest.mark.parametrize(
    "tokens, error, message",
    [
        ([1, 2, 3], sl.MismatchError, "sequence_id 4: its length in .*a is 2, not 3 as in .*b"),
        (
            [1, 3],
            sl.FingerprintMismatchError,
            "sequence_id 4: its fingerprint in .*a is [0-9a-f]{16}",
        ),
    ],
)
def test_sequences_of_other_tokens_are_refused(
    tmp_path: Path, tokens: list[int], error: type[Exception], message: str
) -> None:
    for name, of_name in (("a", [1, 2]), ("b", tokens)):
        with sl.CacheWriter(tmp_path / name, CONFIG, {"seed": str(len(name + str(tokens)))}) as w:
            w.append(of_name, [0] * (len(of_name) + 1), [], [], 4)
    recode = sl.repack(tmp_path / "b", tmp_path / "c", metadata={"seed": "99"})
    assert recode.sequences == 1
    (tmp_path / "b").rename(tmp_path / "old")
    (tmp_path / "c").rename(tmp_path / "b")
    with pytest.raises(error, match=message):
        sl.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", rounds="add")


def test_a_position_with_draws_in_one_cache_only_is_refused(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "2")):
        with sl.CacheWriter(tmp_path / name, CONFIG, {"seed": seed}) as writer:
            writer.append([1], [0, 1], [5], [20], 3)
            offsets = [0, 0, 1, 1] if name == "a" else [0, 0, 1, 2]
            writer.append([1, 2, 3], offsets, [5] * offsets[-1], [20] * offsets[-1], 8)
    for sources in (["a", "b"], ["b", "a"]):
        with pytest.raises(
            sl.MismatchError, match=r"sequence_id 8, position 2: .*b has draws, .*a has none"
        ):
            sl.merge([tmp_path / name for name in sources], tmp_path / "out", rounds="add")
    assert not (tmp_path / "out").exists()


def test_other_configurations_and_teachers_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"seed": "1"}, config=CONFIG)
    warm = dataclasses.replace(CONFIG, temperature=2.0)
    b = write(tmp_path / "b", {"seed": "2"}, config=warm)
    with pytest.raises(sl.MismatchError, match=r"config\.temperature of .*a is 1\.0, not 2\.0"):
        sl.merge([a, b], tmp_path / "out", rounds="add")
    c = write(tmp_path / "c", {"seed": "2", "teacher": "another"}, config=CONFIG)
    with pytest.raises(sl.MismatchError, match=r"metadata\['teacher'\]"):
        sl.merge([a, c], tmp_path / "out", rounds="add")
    d = write(tmp_path / "d", {"seed": "2", "host": "two"}, config=CONFIG)
    with pytest.raises(sl.MismatchError, match=r"metadata\['host'\]"):
        sl.merge([a, d], tmp_path / "out", rounds="add")
    sl.merge([a, d], tmp_path / "out", rounds="add", metadata={"host": "both"})
    assert sl.open(tmp_path / "out").metadata["host"] == "both"


def test_what_was_drawn_is_not_for_the_caller_to_say(tmp_path: Path) -> None:
    sources = [write(tmp_path / s, {"seed": s}, config=CONFIG, draws=int(s)) for s in "12"]
    with pytest.raises(sl.InvalidArgumentError, match=r"metadata\['seed'\] says what was drawn"):
        sl.merge(sources, tmp_path / "out", rounds="add", metadata={"seed": "3"})
    with pytest.raises(sl.InvalidArgumentError, match="at least two caches, got one"):
        sl.merge(sources[:1], tmp_path / "out", rounds="add")
    with pytest.raises(sl.InvalidArgumentError, match="rounds must be one of 'add', got 'sum'"):
        sl.merge(sources, tmp_path / "out", rounds="sum")
    with pytest.raises(sl.InvalidArgumentError, match="is given twice"):
        sl.merge([sources[0], sources[0]], tmp_path / "out", rounds="add")


def test_without_rounds_the_same_sequences_are_refused_as_ever(tmp_path: Path) -> None:
    sources = [write(tmp_path / s, {}, config=CONFIG, draws=int(s)) for s in "12"]
    with pytest.raises(sl.MismatchError, match="must not overlap"):
        sl.merge(sources, tmp_path / "out")


def test_a_damaged_source_leaves_nothing_behind(tmp_path: Path) -> None:
    sources = [write(tmp_path / s, {"seed": s}, config=CONFIG, draws=int(s)) for s in "12"]
    shard = sources[1] / read_manifest(sources[1]).shards[0].file
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    with pytest.raises(sl.FormatError):
        sl.merge(sources, tmp_path / "out", rounds="add")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
