"""The map-style view: samples by number, through torch's own samplers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sample_rows import check_rows, cut, joined
from small_cache import sequences, write_cache
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from sparselogits import errors
from sparselogits.torch import Batch
from sparselogits.torch.map_dataset import SparseLogitMapDataset
from sparselogits.torch.plan_reader import PlanReader

LENGTHS = dict(enumerate([3 + i % 4 for i in range(13)]))

forks = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_cache(tmp_path_factory.mktemp("caches") / "c", list(LENGTHS.values()))


def whole(numbers: list[int]) -> list[list[tuple[int, int]]]:
    return [[(i, p) for p in range(LENGTHS[i])] for i in numbers]


def loader(dataset: Any, collate: Any, **keywords: Any) -> DataLoader[Any]:
    return DataLoader(dataset, collate_fn=collate, **{"batch_size": 4, **keywords})


def contents(batch: Batch) -> list[Any]:
    targets = batch.targets
    tensors = [batch.input_ids, batch.labels, targets.offsets, targets.token_ids, targets.weights]
    if batch.documents is not None:
        documents = batch.documents
        tensors += [documents.position_ids, documents.document_ids, documents.cu_seqlens]
        tensors.append(torch.tensor(documents.max_seqlen))
    arrays = [batch.sequence_ids, batch.lengths]
    return [(t.dtype, t.shape, t.tolist()) for t in tensors] + [
        (a.dtype, a.tolist()) for a in arrays
    ]


def test_single_samples(path: str) -> None:
    dataset = SparseLogitMapDataset(path)
    assert len(dataset) == 13
    for index in (0, 5, 12, -1, -13, np.int64(3)):
        check_rows(dataset[index], whole([int(index) % 13]), LENGTHS)
    assert [sequences(row) for row in dataset] == [[i] for i in range(13)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("index", [13, -14])
def test_an_index_out_of_range_is_an_index_error(path: str, index: int) -> None:
    dataset = SparseLogitMapDataset(path)
    for read in (lambda: dataset[index], lambda: dataset.__getitems__([0, index])):
        with pytest.raises(errors.SequenceNotFoundError, match=f"13 samples, .* no index {index}"):
            read()
    with pytest.raises(IndexError):
        dataset[index]
    with pytest.raises(errors.InvalidArgumentError, match="must be integers"):
        dataset[1.5]  # type: ignore[index]


def test_a_batch_is_one_call_of_the_core(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plans, read = [], PlanReader.read
    monkeypatch.setattr(
        PlanReader, "read", lambda self, plan: plans.append(plan) or read(self, plan)
    )
    dataset = SparseLogitMapDataset(path, pad_token_id=7)
    batches = list(loader(dataset, dataset.collate))
    assert [plan.num_rows for plan in plans] == [4, 4, 4, 1]
    for number, batch in enumerate(batches):
        rows = whole(list(range(13))[4 * number : 4 * number + 4])
        check_rows(batch, rows, LENGTHS, pad_token_id=7)


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_of_torch(path: str, workers: int) -> None:
    dataset = SparseLogitMapDataset(path)
    generator = torch.Generator().manual_seed(3)
    order = list(RandomSampler(dataset, generator=torch.Generator().manual_seed(3)))
    random = RandomSampler(dataset, generator=generator)
    found = [
        sequences(b) for b in loader(dataset, dataset.collate, sampler=random, num_workers=workers)
    ]
    assert found == [order[at : at + 4] for at in range(0, 13, 4)]
    batches = BatchSampler(SequentialSampler(dataset), 5, drop_last=True)
    by_batch = DataLoader(
        dataset, batch_sampler=batches, collate_fn=dataset.collate, num_workers=workers
    )
    assert [sequences(b) for b in by_batch] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    ranks = []
    for rank in range(2):
        sampler = DistributedSampler(dataset, num_replicas=2, rank=rank, shuffle=False)
        ranks.append(
            [i for b in loader(dataset, dataset.collate, sampler=sampler) for i in sequences(b)]
        )
    assert ranks == [[0, 2, 4, 6, 8, 10, 12], [1, 3, 5, 7, 9, 11, 0]]


def test_a_spawned_worker_opens_the_cache_by_its_path(path: str) -> None:
    dataset = SparseLogitMapDataset(path)
    assert len(pickle.dumps(dataset)) < 5000
    workers = loader(dataset, dataset.collate, num_workers=1, multiprocessing_context="spawn")
    assert [contents(b) for b in workers] == [contents(b) for b in loader(dataset, dataset.collate)]


MODES: list[dict[str, Any]] = [{}, {"window": 4}, {"window": 7, "cross_documents": True}]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_rows_put_together_again_are_the_batch(path: str, mode: dict[str, Any]) -> None:
    dataset = SparseLogitMapDataset(path, pad_token_id=7, **mode)
    indices = [4, 0, len(dataset) - 1, 2]
    rows = dataset.__getitems__(indices)
    assert len(rows) == 4
    assert contents(dataset.collate(list(rows))) == contents(dataset.collate(rows))
    assert contents(dataset.collate([dataset[i] for i in indices])) == contents(rows.batch)
    assert contents(rows[-1]) == contents(dataset[2])
    assert [contents(row) for row in rows[1:3]] == [contents(dataset[i]) for i in indices[1:3]]
    with pytest.raises(IndexError, match="4 rows, there is no row 4"):
        rows[4]


def test_windows_and_filters(path: str) -> None:
    lengths = {i: length for i, length in LENGTHS.items() if length != 4}
    for mode, samples in (
        ({"window": 4, "drop_partial_windows": True}, cut(lengths, 4, True)),
        ({"window": 7, "cross_documents": True}, joined(lengths, 7, False)),
    ):
        dataset = SparseLogitMapDataset(
            path, sequence_filter=lambda facts: facts.lengths != 4, **mode
        )
        assert len(dataset) == len(samples)
        (batch,) = loader(dataset, dataset.collate, batch_size=len(dataset))
        check_rows(batch, samples, lengths)
        assert (batch.documents is None) == ("cross_documents" not in mode)


def test_subsets_and_several_caches(path: str) -> None:
    dataset = SparseLogitMapDataset(path)
    (batch,) = loader(Subset(dataset, [3, 1]), dataset.collate)
    check_rows(batch, whole([3, 1]), LENGTHS)
    both = SparseLogitMapDataset([path, path])
    assert len(both) == 26
    (batch,) = loader(Subset(both, [2, 15, 25]), both.collate)
    check_rows(batch, whole([2, 2, 12]), LENGTHS)
    (batch,) = loader(Subset(ConcatDataset([dataset, dataset]), [2, 15, 25]), dataset.collate)
    check_rows(batch, whole([2, 2, 12]), LENGTHS)


def test_only_rows_can_be_put_together(path: str) -> None:
    dataset = SparseLogitMapDataset(path)
    pair = dataset.__getitems__([0, 1]).batch
    for rows in ([], [pair], [dataset[0], pair]):
        with pytest.raises(errors.InvalidArgumentError, match="batches of one row each"):
            dataset.collate(rows)


def test_the_dataloader_of_the_hugging_face_trainer(path: str, tmp_path: Any) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    config = LlamaConfig(
        vocab_size=1009, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    dataset = SparseLogitMapDataset(path)
    trainer = Trainer(
        LlamaForCausalLM(config),
        TrainingArguments(
            str(tmp_path), per_device_train_batch_size=5, report_to=[], use_cpu=True, seed=1
        ),
        train_dataset=dataset,
        data_collator=dataset.collate,
    )
    batches = list(trainer.get_train_dataloader())
    assert all(isinstance(batch, Batch) for batch in batches)
    assert [len(batch.lengths) for batch in batches] == [5, 5, 3]
    order = [i for batch in batches for i in sequences(batch)]
    assert order != sorted(order) == list(range(13))
