"""Caches of this library, through `SparseLogitDataset` and `Cache.read_sequences`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from samples import Sample

import sparselogits as sl
from loaders.base import BATCH_SIZE, Loader, Tensors, data_loader
from sparselogits.torch import Batch, SparseLogitDataset


class Own(Loader):
    """A codec, and how many batches threads of the core make ahead."""

    def __init__(self, codec: str, prefetch_batches: int) -> None:
        self._codec = codec
        self._prefetch_batches = prefetch_batches
        how = "prefetch thread" if prefetch_batches else "bare"
        self.name = f"sparselogits {codec}, {how}"
        self.settings = (
            f'`codec="{codec}"`, `SparseLogitDataset(prefetch_batches={prefetch_batches})`'
        )
        self.has_workers = prefetch_batches == 0

    def write(self, path: Path, sample: Sample) -> None:
        sample.write(path, codec=self._codec)

    def open(self, path: Path, shuffle: bool) -> Any:
        return SparseLogitDataset(
            path, BATCH_SIZE, shuffle=shuffle, prefetch_batches=self._prefetch_batches
        )

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        opened.set_epoch(epoch)
        if num_workers:
            opened = data_loader(opened, num_workers, batch_size=None)
        return map(_tensors, opened)


class ReadSequences(Loader):
    """The raw decode: less than a batch, for there are no labels and no int64 tokens."""

    has_workers = False

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self.name = f"Cache.read_sequences, {codec}"
        self.settings = f'`codec="{codec}"`, NumPy arrays, no labels'

    def write(self, path: Path, sample: Sample) -> None:
        sample.write(path, codec=self._codec)

    def open(self, path: Path, shuffle: bool) -> Any:
        return sl.open(path), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterator[Any]:
        cache, shuffle = opened
        order = np.arange(len(cache))
        if shuffle:
            np.random.default_rng(epoch).shuffle(order)
        for i in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            read = cache.read_sequences(order[i : i + BATCH_SIZE])
            yield None, None, read.offsets, read.token_ids, read.weights


def _tensors(batch: Batch) -> tuple[torch.Tensor, ...]:
    targets = batch.targets
    return batch.input_ids, batch.labels, targets.offsets, targets.token_ids, targets.weights


LOADERS = [
    loader
    for codec in ("packed", "compact")
    for loader in (ReadSequences(codec), Own(codec, 0), Own(codec, 2))
]
