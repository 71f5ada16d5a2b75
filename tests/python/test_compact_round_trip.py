"""What is appended to a compact cache is what is read, whatever it is."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from caches import CONFIG, assert_holds, write
from compact_caches import SEQUENCES, train_early, write_compact
from hypothesis import given, settings
from hypothesis import strategies as st
from random_caches import Recipe, content

import sparselogits as sl


@st.composite
def compact_recipes(draw: st.DrawFn) -> Recipe:
    config = sl.CacheConfig(
        vocab_size=draw(st.sampled_from([2, 3, 255, 1000, 49_152, 2**24])),
        rounds=draw(st.sampled_from([1, 2, 50, 65_535]) | st.integers(1, 200)),
        value_kind=draw(st.sampled_from(["counts", "weights"])),
        weight_dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        store_tokens=draw(st.booleans()),
        codec="compact",
    )
    longest = 3 if config.rounds > 1000 else 150
    lengths = draw(st.lists(st.integers(0, longest), max_size=6))
    return Recipe(config, dict(enumerate(lengths)), draw(st.integers(0, 99)))


@given(
    recipe=compact_recipes(),
    positions=st.sampled_from([1, 60, 10**6]),
    shard_bytes=st.sampled_from([500, 1 << 30]),
    keeps=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_compact_and_packed_caches_hold_the_same(
    recipe: Recipe, positions: int, shard_bytes: int, keeps: bool
) -> None:
    """Trained early or at the end, in one shard or many; with `keeps`, models that do not pay."""
    ids = list(recipe.lengths)
    packed = dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, codec="packed"))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as directory:
        patch.setattr("sparselogits.training_shard.TRAINING_POSITIONS", positions)
        path = Path(directory)
        expected = packed.write(path / "packed", ids)
        model = None
        if keeps and expected.num_entries:
            model = sl.train_model(expected)
        cache = recipe.write(path / "compact", ids, shard_bytes=shard_bytes, model=model)
        assert content(cache) == content(expected)
        assert len(cache.models) <= 1
        if keeps and expected.num_entries:
            assert cache.models == (model,)
        assert sl.verify(path / "compact").ok
        wanted = np.random.default_rng(0).permutation(cache.num_positions)[:50]
        some, other = cache.read_positions(wanted), expected.read_positions(wanted)
        np.testing.assert_array_equal(some.offsets, other.offsets)
        np.testing.assert_array_equal(some.token_ids, other.token_ids)
        np.testing.assert_array_equal(some.weights, other.weights)


@given(recipe=compact_recipes())
@settings(max_examples=10, deadline=None)
def test_a_compact_cache_is_never_larger(recipe: Recipe) -> None:
    """But for the row of its model in the manifest, and the name of its codec."""
    ids = list(recipe.lengths)
    packed = dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, codec="packed"))
    with tempfile.TemporaryDirectory() as directory:
        small = recipe.write(Path(directory) / "compact", ids)
        large = packed.write(Path(directory) / "packed", ids)
        manifests = small.manifest.num_bytes - large.manifest.num_bytes
        assert manifests < 100
        assert small.nbytes - manifests <= large.nbytes


def test_a_cache_worth_it_is_smaller_and_reads_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_early(monkeypatch)
    packed = write(tmp_path / "packed", SEQUENCES)
    cache = write_compact(tmp_path / "c", SEQUENCES)
    assert cache.nbytes < 0.95 * packed.nbytes
    assert [row.sequences for row in cache.manifest.shards] == [5, 7]
    assert_holds(cache, SEQUENCES)
    backwards = np.arange(len(cache))[::-1]
    np.testing.assert_array_equal(
        cache.read_sequences(backwards).token_ids, packed.read_sequences(backwards).token_ids
    )
    part = cache.read(7, start=100, stop=301)
    np.testing.assert_array_equal(part.input_ids, SEQUENCES[7].input_ids[100:301])


def test_hostile_samples_come_back(tmp_path: Path) -> None:
    """One id with all counts, as many ids as rounds, ids never seen in training, none at all."""
    config = dataclasses.replace(CONFIG, vocab_size=2**24, rounds=300, codec="compact")
    few = [([5], [300]), ([2**24 - 1], [300]), (range(300), [1] * 300), ([], [])]
    new = [([7], [300]), (range(2**24 - 300, 2**24), [1] * 300), ([0, 2**24 - 1], [299, 1])]
    cases = few * 40 + new * 40
    ids = [np.array(list(ids), np.int64) for ids, _ in cases]
    counts = [np.array(counts, np.int64) for _, counts in cases]
    offsets = np.cumsum([0, *map(len, ids)])
    tokens = np.arange(len(cases)) * 7919 % 2**24
    few_offsets = np.cumsum([0, *(len(i) for i, _ in few)])
    with sl.CacheWriter(tmp_path / "few", config) as writer:
        writer.append(
            tokens[:4],
            few_offsets,
            np.concatenate([np.array(list(i), np.int64) for i, _ in few]),
            np.concatenate([np.array(c, np.int64) for _, c in few]),
        )
    model = sl.train_model(tmp_path / "few")
    with sl.CacheWriter(tmp_path / "all", config, model=model) as writer:
        writer.append(tokens, offsets, np.concatenate(ids), np.concatenate(counts))
    read = sl.open(tmp_path / "all")[0]
    np.testing.assert_array_equal(read.offsets, offsets)
    np.testing.assert_array_equal(read.token_ids, np.concatenate(ids))
    np.testing.assert_array_equal(read.counts, np.concatenate(counts))
    np.testing.assert_array_equal(read.input_ids, tokens)
