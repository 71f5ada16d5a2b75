"""Several caches in one dataset: shares at every moment, whole passes, and what must agree."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cache import VOCAB, sequences, tokens_of, write_cache

import sparselogits as sl
from sparselogits import errors
from sparselogits.torch import Batch, SparseLogitDataset

SIZES = [5, 12, 20]
MARKS = [3, 4, 6]  # the length of a sequence tells its cache
WEIGHTS = [0.5, 0.3, 0.2]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("caches")
    return [
        write_cache(folder / str(mark), [mark] * size)
        for mark, size in zip(MARKS, SIZES, strict=True)
    ]


def drawn(batches: Any) -> list[tuple[int, int]]:
    """(cache, sequence) of every row."""
    return [
        (MARKS.index(int(length)), sequence)
        for batch in batches
        for length, sequence in zip(batch.lengths, sequences(batch), strict=True)
    ]


def epochs(dataset: SparseLogitDataset, count: int) -> list[tuple[int, int]]:
    samples = []
    for epoch in range(count):
        dataset.set_epoch(epoch)
        samples += drawn(dataset)
    return samples


@pytest.mark.parametrize("batch_size, shuffle", [(1, True), (5, True), (37, False)])
def test_every_cache_has_its_share_at_every_moment(
    paths: list[str], batch_size: int, shuffle: bool
) -> None:
    dataset = SparseLogitDataset(
        paths, batch_size, shuffle, mixture_weights=WEIGHTS, drop_last=False
    )
    samples = epochs(dataset, 3)
    assert len(samples) == 3 * sum(SIZES)
    for cache, weight in enumerate(WEIGHTS):
        share = Fraction(str(weight))
        had = np.cumsum([number == cache for number, _ in samples])
        for count, value in enumerate(had.tolist(), start=1):
            assert share * count - 1 < value < share * count + 1


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_cache_is_gone_through_before_it_is_repeated(paths: list[str], shuffle: bool) -> None:
    dataset = SparseLogitDataset(
        paths, 1, shuffle, seed=4, mixture_weights=WEIGHTS, drop_last=False
    )
    samples = epochs(dataset, 3)
    for cache, size in enumerate(SIZES):
        of_cache = [sequence for number, sequence in samples if number == cache]
        passes = [of_cache[at : at + size] for at in range(0, len(of_cache), size)]
        for one in passes[:-1]:
            assert sorted(one) == list(range(size))
        assert len(set(passes[-1])) == len(passes[-1])
        assert (passes[0][: len(passes[1])] != passes[1][:size]) == shuffle
        assert (passes[0] == list(range(size))) == (not shuffle)


def test_weights_by_size_give_every_sample_once_an_epoch(paths: list[str]) -> None:
    dataset = SparseLogitDataset(paths, 1, mixture_weights=SIZES)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        assert max(Counter(drawn(dataset)).values()) == 1


def test_without_weights_several_caches_are_one(paths: list[str]) -> None:
    everything = [(cache, i) for cache, size in enumerate(SIZES) for i in range(size)]
    in_order = SparseLogitDataset(paths, 5, False, drop_last=False)
    assert drawn(in_order) == everything
    shuffled = SparseLogitDataset(paths, 5, drop_last=False)
    first, second = epochs(shuffled, 1), epochs(shuffled, 2)[len(everything) :]
    assert sorted(first) == sorted(second) == everything
    assert len({tuple(first), tuple(second), tuple(everything)}) == 3
    one = SparseLogitDataset([paths[1]], 5, seed=1)
    assert drawn(one) == drawn(SparseLogitDataset(paths[1], 5, seed=1))


def test_a_filter_by_metadata_takes_weights_and_tokens_along(tmp_path: Path) -> None:
    caches = []
    for mark, size, domain in zip(MARKS, SIZES, ("code", "web", "code"), strict=True):
        path = write_cache(
            tmp_path / str(mark), [mark] * size, store_tokens=False, metadata={"domain": domain}
        )
        caches.append(path)
    tokens = [
        [tokens_of(sequence, mark) for sequence in range(size)]
        for mark, size in zip(MARKS, SIZES, strict=True)
    ]
    dataset = SparseLogitDataset(
        caches,
        5,
        input_ids=tokens,
        mixture_weights=WEIGHTS,
        cache_filter=lambda metadata: metadata["domain"] == "code",
    )
    assert [cache.path for cache in dataset.caches] == [caches[0], caches[2]]
    counts = Counter(cache for cache, _ in drawn(dataset))
    assert counts == {0: 18, 2: 7}  # 5 : 2 of 25
    with pytest.raises(errors.InvalidArgumentError, match="cache_filter keeps none"):
        SparseLogitDataset(caches, input_ids=tokens, cache_filter=lambda metadata: False)


def other(path: Path, **config: Any) -> str:
    settings = {"vocab_size": VOCAB, "rounds": 50, **config}
    with sl.CacheWriter(path, sl.CacheConfig(**settings)) as writer:
        writer.append([1, 2], [0, 1, 2], [5, 6], [settings["rounds"]] * 2)
    return str(path)


def test_caches_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    first = other(tmp_path / "first", tokenizer_fingerprint="0123456789abcdef")
    for name, config, error in (
        ("vocab_size", {"vocab_size": VOCAB + 1}, errors.VocabularyMismatchError),
        (
            "tokenizer_fingerprint",
            {"tokenizer_fingerprint": "f" * 16},
            errors.FingerprintMismatchError,
        ),
        ("temperature", {"temperature": 2.0}, errors.MismatchError),
    ):
        second = other(tmp_path / name, **config)
        for pair in ([first, second], [second, first]):
            with pytest.raises(error, match=f"{pair[0]} has {name} .* and {pair[1]} "):
                SparseLogitDataset(pair, 1)
    unknown = other(tmp_path / "unknown", rounds=7)
    assert len(SparseLogitDataset([first, unknown], 1)) == 2
    third = other(tmp_path / "third", tokenizer_fingerprint="a" * 16)
    with pytest.raises(errors.FingerprintMismatchError, match=f"{first} .* and {third} "):
        SparseLogitDataset([first, unknown, third], 1)


def test_wrong_arguments(paths: list[str], tmp_path: Path) -> None:
    for caches, keywords, message in (
        ([], {}, "there is no cache"),
        (paths, {"mixture_weights": [1, 2]}, "mixture_weights has 2 numbers and there are 3"),
        (paths, {"mixture_weights": [1, 2, 0]}, r"mixture_weights\[2\] must be finite and above"),
        (paths[0], {"mixture_weights": [1, 2]}, "mixture_weights has 2 numbers and there are 1"),
        (paths, {"input_ids": [None]}, "input_ids has 1 sources of tokens and there are 3"),
        (paths, {"input_ids": [None, None, [[1]]]}, "input_ids has 1 windows and the cache 20"),
    ):
        with pytest.raises(errors.InvalidArgumentError, match=message):
            SparseLogitDataset(caches, 1, **keywords)
    empty = write_cache(tmp_path / "empty", [0, 0])
    with pytest.raises(errors.InvalidArgumentError, match=f"{empty} has no sample"):
        SparseLogitDataset([paths[0], empty], 1, window=2, mixture_weights=[1, 1])
    with pytest.raises(errors.InvalidArgumentError, match="the dataset has 3 caches"):
        _ = SparseLogitDataset(paths, 1).cache
    assert SparseLogitDataset(paths[:1], 1).cache.path == paths[0]


def test_rows_of_one_batch_come_from_several_caches(paths: list[str]) -> None:
    batch: Batch = next(iter(SparseLogitDataset(paths, 10, mixture_weights=WEIGHTS)))
    assert Counter(cache for cache, _ in drawn([batch])) == {0: 5, 1: 3, 2: 2}
