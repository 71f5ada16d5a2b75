"""The compact cache that the steps read, and the same batches in memory for their rivals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from samples import load_samples

import sparselogits as sl
from sparselogits.torch import Batch, SparseLogitDataset, SparseTargets

SAMPLE = "multinomial50-sharp"


def write_compact_cache(path: Path) -> None:
    """A compact cache with tokens of the sample with the paper's sharpness."""
    samples = load_samples()
    sample = next((sample for sample in samples if sample.name == SAMPLE), samples[0])
    source = path.with_name(path.name + "-packed")
    sample.write(source)
    sample.write(path, sl.train_model(source), codec="compact", store_tokens=True)


def endless(path: Path, batch_size: int) -> Iterator[Batch]:
    """Batches through the dataset, epoch after epoch."""
    dataset = SparseLogitDataset(path, batch_size=batch_size, seed=0)
    while True:
        yield from dataset
        dataset.set_epoch(dataset.epoch + 1)


def one_entry(batch: Batch) -> SparseTargets:
    """The next tokens as targets of one entry; rows without a label are empty."""
    labels = batch.labels.flatten()
    real = labels >= 0
    offsets = torch.zeros(len(labels) + 1, dtype=torch.int64)
    torch.cumsum(real, 0, out=offsets[1:])
    ids = labels[real]
    return SparseTargets(offsets, ids, torch.ones(len(ids)), batch.targets.vocab_size)
