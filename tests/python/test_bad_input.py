"""Bad input gets an error that names the field, the value and the limit, and nothing is lost."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import CONFIG, assert_holds, random_sequence, write

import sparselogits as sl

COMPACT = dataclasses.replace(CONFIG, codec="compact")

# input_ids, offsets, token_ids, counts; rounds are 20, the vocabulary 1000.
BAD_COUNTS: dict[str, tuple[tuple[Any, Any, Any, Any], str]] = {
    "id not below vocab_size": (([1], [0, 1], [1000], [20]), "1000"),
    "id far above": (([1], [0, 1], [2**40], [20]), str(2**40)),
    "negative id": (([1], [0, 1], [-1], [20]), "-1"),
    "token not below vocab_size": (([1000], [0, 1], [1], [20]), "1000"),
    "negative token": (([-5], [0, 1], [1], [20]), "-5"),
    "sum below rounds": (([1], [0, 2], [1, 2], [10, 9]), "19"),
    "sum above rounds": (([1], [0, 2], [1, 2], [10, 11]), "21"),
    "sum of a merged id": (([1], [0, 2], [1, 1], [10, 9]), "19"),
    "zero count": (([1], [0, 2], [1, 2], [20, 0]), "0"),
    "negative count": (([1], [0, 2], [1, 2], [-1, 21]), "-1"),
    "offsets decrease": (([1, 2, 3], [0, 2, 1, 2], [1, 2], [10, 10]), "offsets"),
    "offsets end early": (([1], [0, 1], [1, 2], [20, 20]), "offsets must end .* 1 for 2"),
    "offsets end late": (([1], [0, 3], [1, 2], [10, 10]), "offsets must end .* 3 for 2"),
    "offsets do not start at 0": (([1], [1, 2], [1, 2], [20, 20]), "offsets must start .* 1"),
    "offsets empty": (([], [], [], []), "offsets"),
    "too few offsets": (([1, 2], [0, 1], [1], [20]), "2 offsets for 2 input_ids"),
    "too few counts": (([1], [0, 2], [1, 2], [20]), "1 counts for 2 token_ids"),
    "float ids": (([1], [0, 1], [1.0], [20]), "token_ids must be integers.*float64"),
    "bool ids": (([1], [0, 1], [True], [20]), "token_ids must be integers.*bool"),
    "float tokens": (([1.5], [0, 1], [1], [20]), "input_ids must be integers.*float64"),
    "float offsets": (([1], [0.0, 1.0], [1], [20]), "offsets must be integers.*float64"),
    "float counts": (([1], [0, 1], [1], [20.0]), "counts must be integers.*float64"),
    "string ids": (([1], [0, 1], ["a"], [20]), "token_ids must be integers"),
    "None ids": (([1], [0, 1], None, [20]), "token_ids"),
    "two dimensions": (([1], [0, 1], [[1]], [20]), r"token_ids must have one dimension.*\(1, 1\)"),
    "no counts": (([1], [0, 1], [1], None), "counts cache: give counts"),
    "uint64 above int64": (([1], [0, 1], np.array([2**63], np.uint64), [20]), "below 2\\^63"),
}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[sl.CacheWriter]:
    """A writer with one good sequence before the test and another after it."""
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer:
        random_sequence(0).append_to(writer)
        yield writer
        assert writer.num_sequences == 1
        random_sequence(1).append_to(writer)
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(0), random_sequence(1)])


@pytest.mark.parametrize("name", BAD_COUNTS)
def test_append_refuses(writer: sl.CacheWriter, name: str) -> None:
    arguments, message = BAD_COUNTS[name]
    with pytest.raises(sl.InvalidArgumentError, match=message):
        writer.append(*arguments)


@pytest.mark.parametrize("sequence_id", [0, -1, 2**64, 1.0, True, "1"])
def test_sequence_ids_that_are_refused(writer: sl.CacheWriter, sequence_id: Any) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=f"sequence_id.*{sequence_id}"):
        writer.append([], [0], [], [], sequence_id)


@pytest.mark.parametrize(
    "starts, ids, message",
    [
        ([0, 1, 2], [5, 5], "sequence_id 5"),
        ([0, 1, 2], [1, 0], "sequence_id 0"),
        ([0, 1, 2], [1], "1 for 2 sequences"),
        ([0, 1, 2], [1.0, 2.0], "sequence_ids must be integers"),
        ([0, 1, 2], [-1, 2], "-1"),
        ([0, 1, 2], [1, 2**64], str(2**64)),
        ([0, 2, 1, 2], [1, 2, 3], "sequence_offsets"),
        ([0, 1], [1], "sequence_offsets must end .* 1 for 2"),
        ([1, 2], [1], "sequence_offsets must start"),
        ([], [], "sequence_offsets"),
        (None, [1], "sequence_offsets"),
    ],
)
def test_append_many_refuses(writer: sl.CacheWriter, starts: Any, ids: Any, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        writer.append_many([1, 2], starts, [0, 1, 2], [3, 4], [20, 20], ids)


def test_one_bad_sequence_of_many_refuses_all(writer: sl.CacheWriter) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="19"):
        writer.append_many([1, 2], [0, 1, 2], [0, 1, 2], [3, 4], [20, 19], [10, 11])
    assert 10 not in writer


@pytest.mark.parametrize(
    "weights, message",
    [
        ([np.nan], "nan"),
        ([np.inf], "inf"),
        ([-1.0], "-1"),
        ([1e39], "1e[+]39"),
        ([1.0, 2.0], "2 weights for 1 token_ids"),
        (np.ones(1, np.float16), "float32 or float64.*float16"),
        (np.ones(1, int), "float32 or float64.*int64"),
        (None, "give weights"),
    ],
)
def test_bad_weights(tmp_path: Path, weights: Any, message: str) -> None:
    config = sl.CacheConfig(vocab_size=10, value_kind="weights")
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        with pytest.raises(sl.InvalidArgumentError, match=f"(?i){message}"):
            writer.append([1], [0, 1], [1], weights=weights)
        with pytest.raises(sl.InvalidArgumentError, match="weights cache"):
            writer.append([1], [0, 1], [1], [1], weights=[1.0])


@pytest.mark.parametrize(
    "field, value",
    [
        *(("vocab_size", v) for v in (0, -1, 2**24 + 1, 10.0, True, "10", None)),
        *(("rounds", v) for v in (0, 65536, 1.5, False)),
        *(("sampler", v) for v in ("", "x" * 17, "Top K", "é", None, 3)),
        *(("temperature", v) for v in (0, -1.0, np.nan, np.inf, 10**400, "1", True)),
        *(("proposal_temperature", v) for v in (0.0, -np.inf, None)),
        *(("codec", v) for v in ("zip", "Compact", None, 0)),
        *(("store_tokens", v) for v in (1, 0, None, "yes")),
        *(("tokenizer_fingerprint", v) for v in ("12", 12, "g" * 16, "0" * 17)),
        *(("value_kind", v) for v in ("probs", 1)),
        *(("weight_dtype", v) for v in ("float64", None)),
    ],
)
def test_config_refuses(field: str, value: Any) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=field):
        sl.CacheConfig(**{"vocab_size": 10, field: value})


def test_config_takes_numpy_numbers() -> None:
    config = sl.CacheConfig(vocab_size=np.int32(7), rounds=np.uint16(3), temperature=np.float32(2))
    assert (type(config.vocab_size), type(config.rounds)) == (int, int)
    assert type(config.temperature) is float
    assert sl.CacheConfig.from_dict(config.to_dict()) == config


def test_counts_of_a_proposal_are_refused(tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=10, proposal_temperature=0.5, value_kind="counts")
    with pytest.raises(sl.InvalidArgumentError, match="would estimate the proposal"):
        sl.CacheWriter(tmp_path / "c", config)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"metadata": {"a": 1}}, "metadata must map str to str"),
        ({"metadata": [("a", "b")]}, "metadata must map str to str"),
        ({"metadata": {"a": "\ud800"}}, "metadata is not valid Unicode"),
        ({"metadata": {"a": "x" * (1 << 20)}}, "metadata must be at most 1048576"),
        ({"model": object()}, "model must be None for codec 'packed'"),
        ({"config": COMPACT, "model": object()}, "model must be a CodecModel or a path"),
        ({"config": COMPACT, "model": b"a"}, "model must be a CodecModel or a path"),
        ({"shard_bytes": 0}, "shard_bytes"),
        ({"commit_bytes": 1.5}, "commit_bytes"),
        ({"resume": 1}, "resume"),
        ({"config": {"vocab_size": 3}}, "config must be a CacheConfig"),
        ({"path": "s3://bucket/cache"}, "URL"),
        ({"path": b"bytes"}, "path"),
        ({"path": 3}, "path"),
        ({"path": ""}, "path"),
    ],
)
def test_writer_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.CacheWriter(**{"path": tmp_path / "c", "config": CONFIG, **options})
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())


def test_a_directory_that_holds_a_cache(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", [random_sequence(0)])
    with pytest.raises(sl.InvalidArgumentError, match="already holds a cache"):
        sl.CacheWriter(tmp_path / "c", CONFIG)
    assert sl.open(tmp_path / "c").digest == cache.digest


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(sl.CacheIOError, match="c"):
        sl.CacheWriter(tmp_path / "c", CONFIG)
    with pytest.raises(sl.CacheIOError, match="c"):
        sl.open(tmp_path / "c")


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_writer(tmp_path: Path, resume: bool) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer:
        random_sequence(0).append_to(writer)
        for action in (
            lambda: sl.CacheWriter(tmp_path / "c", CONFIG, resume=resume),
            lambda: sl.recover(tmp_path / "c"),
        ):
            with pytest.raises(sl.CacheIOError, match="another writer"):
                action()
        script = f"import sparselogits as sl; sl.recover({str(tmp_path / 'c')!r})"
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "another writer" in other.stderr
        random_sequence(1).append_to(writer)
    assert_holds(sl.open(tmp_path / "c"), [random_sequence(0), random_sequence(1)])


def test_use_after_close(tmp_path: Path) -> None:
    writer = sl.CacheWriter(tmp_path / "c", CONFIG)
    random_sequence(0).append_to(writer)
    writer.close()
    writer.close()
    assert writer.num_sequences == 1
    assert "closed" in repr(writer)
    for use in (writer.flush, writer.__enter__, lambda: random_sequence(1).append_to(writer)):
        with pytest.raises(sl.InvalidArgumentError, match="closed"):
            use()


def test_open_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(sl.CacheIOError, match="missing"):
        sl.open(tmp_path / "missing")
    with pytest.raises(sl.CacheIOError, match=r"no manifest\.json"):
        sl.open(tmp_path)
    with pytest.raises(sl.CacheIOError, match="no cache"):
        sl.recover(tmp_path)
    with pytest.raises(sl.InvalidArgumentError, match="URL"):
        sl.recover("gs://bucket/cache")
    with pytest.raises(sl.InvalidArgumentError, match=r"nowhere://"):
        sl.open("nowhere://bucket/cache")
    with pytest.raises(sl.InvalidArgumentError, match="verify_checksums"):
        sl.open(tmp_path, verify_checksums=1)  # type: ignore[arg-type]


def test_a_truncated_shard(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    shard = tmp_path / "c" / "shard-000000.slc"
    good = shard.read_bytes()
    for length in (0, 1, 64, 127, 128, 300, len(good) - 64, len(good) - 1):
        shard.write_bytes(good[:length])
        with pytest.raises(sl.FormatError, match=r"shard-000000\.slc"):
            sl.open(tmp_path / "c")


def test_a_foreign_file(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    shard = tmp_path / "c" / "shard-000000.slc"
    shard.write_bytes(b"PK\x03\x04".ljust(shard.stat().st_size, b"\0"))
    with pytest.raises(sl.FormatError, match="magic"):
        sl.open(tmp_path / "c")


def test_a_newer_version(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    shard = tmp_path / "c" / "shard-000000.slc"
    newer = bytearray(shard.read_bytes())
    newer[8] = 2
    shard.write_bytes(newer)
    with pytest.raises(sl.UnsupportedError, match="version"):
        sl.open(tmp_path / "c")


def test_a_shard_of_another_cache(tmp_path: Path) -> None:
    write(tmp_path / "a", [random_sequence(0)])
    write(tmp_path / "b", [random_sequence(0)])
    (tmp_path / "b" / "shard-000000.slc").replace(tmp_path / "a" / "shard-000000.slc")
    with pytest.raises((sl.FormatError, sl.MismatchError), match="uuid"):
        sl.open(tmp_path / "a")


def test_a_missing_shard(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    (tmp_path / "c" / "shard-000000.slc").unlink()
    with pytest.raises(sl.CacheIOError, match=r"shard-000000\.slc"):
        sl.open(tmp_path / "c")
