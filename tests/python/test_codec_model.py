"""`CodecModel` and `train_model`: made of samples, kept in files, refused where it does not fit."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caches import CONFIG, assert_holds, write
from compact_caches import COMPACT, SEQUENCES, write_compact
from test_plain_files import fifo

import sparselogits as sl
from sparselogits import _core
from sparselogits.limits import MAX_MODEL_BYTES
from sparselogits.training_sample import TRAINING_ENTRIES, spread_positions


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> sl.Cache:
    return write(tmp_path_factory.mktemp("source") / "c", SEQUENCES)


@pytest.fixture(scope="module")
def model(source: sl.Cache) -> sl.CodecModel:
    return sl.train_model(source)


def test_a_model_says_what_it_is(model: sl.CodecModel, source: sl.Cache) -> None:
    assert model.digest == f"{_core.xxh64(model.to_bytes()):016x}"
    assert model.file_name == f"model-{model.digest}.slm"
    assert model.nbytes == len(model.to_bytes())
    assert (model.vocab_size, model.rounds, model.codes_tokens) == (1000, 20, True)
    assert sl.train_model(source, num_classes=1).num_classes == 1
    assert sl.train_model(source, num_classes=3).num_classes == 3
    assert model.digest in repr(model)


def test_the_same_source_gives_the_same_model(model: sl.CodecModel, source: sl.Cache) -> None:
    again = sl.train_model(source.path)
    assert again == model
    assert hash(again) == hash(model)
    assert sl.train_model(source, max_positions=1000) != model
    assert model != model.to_bytes()


def test_a_model_survives_files_and_pickles(model: sl.CodecModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.slm")
    assert sl.CodecModel.load(tmp_path / "m.slm") == model
    assert pickle.loads(pickle.dumps(model)) == model
    assert [file.name for file in tmp_path.iterdir()] == ["m.slm"]
    with pytest.raises(sl.CacheIOError, match="nowhere"):
        model.save(tmp_path / "nowhere" / "m.slm")


@pytest.mark.parametrize("as_path", [False, True])
def test_one_model_serves_many_writers(model: sl.CodecModel, tmp_path: Path, as_path: bool) -> None:
    model.save(tmp_path / "m.slm")
    given: Any = tmp_path / "m.slm" if as_path else model
    for number in range(3):
        some = SEQUENCES[number::3]
        cache = write_compact(tmp_path / f"{number}", some, model=given)
        assert cache.models == (model,)
        assert_holds(cache, some)
    assert_holds(write_compact(tmp_path / "one", SEQUENCES[:1], model=given), SEQUENCES[:1])


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"vocab_size": 1001}, "vocab_size: 1000, not 1001"),
        ({"rounds": 21}, "rounds: 20, not 21"),
        ({"value_kind": "weights"}, "value_kind"),
    ],
)
def test_a_model_for_other_records_is_refused_by_field(
    model: sl.CodecModel, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    config = dataclasses.replace(COMPACT, **changes)
    with pytest.raises(sl.MismatchError, match=f"model {model.digest} .* another {field}"):
        sl.CacheWriter(tmp_path / "c", config, model=model)
    assert not (tmp_path / "c").exists()


def test_a_model_for_tokens_serves_caches_without_and_not_the_reverse(
    model: sl.CodecModel, source: sl.Cache, tmp_path: Path
) -> None:
    bare = dataclasses.replace(COMPACT, store_tokens=False)
    cache = write_compact(tmp_path / "bare", SEQUENCES, bare, model=model)
    np.testing.assert_array_equal(cache[3].token_ids, SEQUENCES[3].token_ids)
    without = sl.train_model(source, store_tokens=False)
    assert not without.codes_tokens
    assert not sl.train_model(cache).codes_tokens
    with pytest.raises(sl.MismatchError, match="another store_tokens: False, not True"):
        sl.CacheWriter(tmp_path / "c", COMPACT, model=without)
    with pytest.raises(sl.InvalidArgumentError, match="does not store"):
        sl.train_model(cache, store_tokens=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_models_of_weights(tmp_path: Path, dtype: str) -> None:
    config = dataclasses.replace(CONFIG, value_kind="weights", weight_dtype=dtype)
    weights = np.random.default_rng(0).random(len(SEQUENCES[0].token_ids)).astype(np.float32)
    s = SEQUENCES[0]
    caches = []
    for number in range(2):
        with sl.CacheWriter(
            tmp_path / f"{number}",
            dataclasses.replace(config, codec="compact" if number else "packed"),
            model=sl.train_model(tmp_path / "0") if number else None,
        ) as writer:
            writer.append(s.input_ids, s.offsets, s.token_ids, sequence_id=1, weights=weights)
        caches.append(sl.open(tmp_path / f"{number}"))
    np.testing.assert_array_equal(caches[0][0].weights, caches[1][0].weights)
    assert len(caches[1].models) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_positions": 0}, "max_positions must be from 1"),
        ({"max_positions": 1.5}, "max_positions must be an integer"),
        ({"num_classes": 0}, "num_classes must be from 1 to 256"),
        ({"num_classes": 257}, "num_classes must be from 1 to 256"),
        ({"store_tokens": 1}, "store_tokens must be True or False"),
    ],
)
def test_training_refuses(source: sl.Cache, options: dict[str, Any], message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.train_model(source, **options)


def test_there_must_be_something_to_learn_from(tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG) as writer:
        writer.append([1, 2], [0, 0, 0], [], [])
    with pytest.raises(sl.InvalidArgumentError, match="no entries to train a model on"):
        sl.train_model(tmp_path / "c")


def test_training_positions_are_spread_evenly_in_whole_blocks() -> None:
    np.testing.assert_array_equal(spread_positions(5, 50, 10), np.arange(5))
    wanted = spread_positions(10_000_000, 100_000_000, 250_000)
    assert 240_000 < len(wanted) <= 250_000
    assert (np.diff(wanted) > 0).all()
    assert (wanted[0], wanted[-1]) == (0, 9_999_999)
    gaps = np.diff(wanted)
    gaps = gaps[gaps > 1]
    assert gaps.max() - gaps.min() <= 1
    assert len(spread_positions(10, 20, 3)) == 3
    assert len(spread_positions(0, 0, 3)) == 0
    many = spread_positions(1_000_000, 1_000_000_000, 250_000)
    assert 0 < len(many) * 1000 <= TRAINING_ENTRIES


def test_a_flipped_bit_makes_no_model_or_one_of_another_digest(
    model: sl.CodecModel, tmp_path: Path
) -> None:
    """Another model is harmless: what it codes is decoded by it, or by none."""
    data = model.to_bytes()
    file = tmp_path / "m.slm"
    refused = 0
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 200).tolist():
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        file.write_bytes(broken)
        try:
            assert sl.CodecModel.load(file).digest != model.digest
        except sl.FormatError as error:
            refused += error.path == str(file)
    assert refused > 20


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 1000])
def test_what_is_cut_off_is_no_model(model: sl.CodecModel, tmp_path: Path, length: int) -> None:
    (tmp_path / "m.slm").write_bytes(model.to_bytes()[:length])
    with pytest.raises(sl.FormatError, match=r"m\.slm"):
        sl.CodecModel.load(tmp_path / "m.slm")


def test_other_files_are_no_models(tmp_path: Path) -> None:
    fifo(tmp_path / "pipe")
    for path, message in ((tmp_path / "pipe", "regular file"), (tmp_path, "regular file")):
        with pytest.raises(sl.CacheIOError, match=message):
            sl.CodecModel.load(path)
    with pytest.raises(sl.CacheIOError, match="nowhere"):
        sl.CodecModel.load(tmp_path / "nowhere")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", MAX_MODEL_BYTES + 1)
    with pytest.raises(sl.CorruptionError, match="is longer than 67108864 bytes"):
        sl.CodecModel.load(tmp_path / "large")
