"""Filters: exactly the selected sequences, in the order of the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sample_rows import check_rows, cut, joined
from small_cache import FIRST_ID, sequences, tokens_of, write_cache

import sparselogits as sl
from sparselogits import errors
from sparselogits.torch import SparseLogitDataset

LENGTHS = [3 + i % 4 for i in range(20)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("caches")
    return write_cache(folder / "c", LENGTHS, shard_bytes=1, metadata={"domain": "code"})


def name(sequence: int) -> int:
    return FIRST_ID + 3 * sequence


def used(path: Any, chosen: Any, **keywords: Any) -> list[int]:
    dataset = SparseLogitDataset(
        path, 3, shuffle=False, drop_last=False, sequence_filter=chosen, **keywords
    )
    return [sequence for batch in dataset for sequence in sequences(batch)]


def test_by_length_fingerprint_id_and_metadata(path: str) -> None:
    long = [i for i, length in enumerate(LENGTHS) if length > 4]
    assert used(path, lambda facts: facts.lengths > 4) == long
    print_of_7 = sl.fingerprint_tokens(tokens_of(7, LENGTHS[7]))
    assert used(path, lambda facts: facts.fingerprints == print_of_7) == [7]
    assert used(path, lambda facts: facts.sequence_ids >= name(18)) == [18, 19]
    code = used(path, lambda f: np.full(len(f.lengths), f.metadata["domain"] == "code"))
    assert code == list(range(20))


@pytest.mark.parametrize(
    "chosen",
    [
        [name(9), name(2), name(15)],
        np.array([name(2), name(9), name(15)], np.uint64),
        {name(2), name(9), name(15)},
    ],
)
def test_by_sequence_ids(path: str, chosen: Any) -> None:
    assert used(path, chosen) == [2, 9, 15]


def test_a_shuffled_epoch_has_each_selected_sequence_once(path: str) -> None:
    dataset = SparseLogitDataset(path, 3, sequence_filter=lambda facts: facts.lengths > 4)
    assert len(dataset) == 3
    seen = [sequence for batch in dataset for sequence in sequences(batch)]
    assert len(set(seen)) == len(seen) == 9
    assert all(LENGTHS[sequence] > 4 for sequence in seen)


def test_windows_pass_over_what_is_not_selected(path: str) -> None:
    lengths = {i: length for i, length in enumerate(LENGTHS) if length != 4}
    for keywords, samples in (
        ({"window": 4}, cut(lengths, 4, False)),
        ({"window": 8, "cross_documents": True}, joined(lengths, 8, False)),
    ):
        (batch,) = SparseLogitDataset(
            path, 99, False, drop_last=False, sequence_filter=lambda facts: facts.lengths != 4,
            **keywords,
        )  # fmt: skip
        check_rows(batch, samples, lengths)


def test_several_caches_share_a_list_of_ids(path: str, tmp_path: Any) -> None:
    other = tmp_path / "other"
    with sl.CacheWriter(other, sl.CacheConfig(vocab_size=1009, rounds=50)) as writer:
        for index in range(3):
            writer.append([1], [0, 1], [5], [50], sequence_id=index)
    dataset = SparseLogitDataset(
        [path, other], 3, False, sequence_filter=[name(1), 2, name(3)], prefetch_batches=0
    )
    (batch,) = dataset
    assert batch.sequence_ids.tolist() == [name(1), name(3), 2]


@pytest.mark.parametrize(
    "chosen, error, message",
    [
        (lambda facts: facts.lengths, errors.InvalidArgumentError, r"\(20,\) booleans for .* int"),
        (lambda facts: [True], errors.InvalidArgumentError, r"\(20,\) booleans .* shape \(1,\)"),
        (lambda facts: True, errors.InvalidArgumentError, r"\(20,\) booleans .* shape \(\)"),
        (lambda facts: facts.lengths > 99, errors.InvalidArgumentError, "no sequence of /"),
        ([], errors.InvalidArgumentError, "no sequence of /"),
        ([name(1), name(1)], errors.InvalidArgumentError, "more than once"),
        ([name(1), 5, 7], errors.SequenceNotFoundError, "there is no sequence_id 5$"),
        ([1.5], errors.InvalidArgumentError, "sequence_filter must be integers"),
        ([-1], errors.InvalidArgumentError, "sequence_filter must be from 0"),
    ],
)
def test_filters_that_make_no_sense_are_refused(
    path: str, chosen: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        used(path, chosen)


def test_a_filter_is_asked_once_and_need_not_pickle(path: str) -> None:
    asked = []

    def chosen(facts: Any) -> Any:
        asked.append(facts.metadata)
        return torch.from_numpy(facts.lengths) > 5

    dataset = SparseLogitDataset(path, 3, sequence_filter=chosen)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert [sequences(b) for b in loader] == [sequences(b) for b in dataset]
    assert asked == [{"domain": "code"}]
