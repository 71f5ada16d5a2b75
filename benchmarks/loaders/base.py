"""What the benchmark asks of a loader."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from samples import Sample
from torch.utils.data import DataLoader

BATCH_SIZE = 8
"""Sequences of a batch."""

Tensors: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""input_ids and labels (B, S) int64, offsets (B·S + 1) int64, token_ids int32, weights float32."""


class Loader(ABC):
    """A way to store a sample and to get batches of it.

    Attributes:
        name: The row's name in the table.
        settings: What was chosen, for the notes below the table.
        random: How far the sequences are shuffled, where that is not freely.
        has_workers: Whether it is measured with processes of a DataLoader too.
    """

    name: str
    settings: str
    random = ""
    has_workers = True

    @abstractmethod
    def write(self, path: Path, sample: Sample) -> None:
        """Stores the sample in a new directory."""

    @abstractmethod
    def open(self, path: Path, shuffle: bool) -> Any:
        """What `batches` needs, made before the clock starts."""

    @abstractmethod
    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        """All sequences once: in their order, or in an order of the epoch's own."""


def data_loader(dataset: Any, num_workers: int, **options: Any) -> Any:
    """A DataLoader of batches, or of single records where `options` say how to collate them."""
    context = "fork" if num_workers else None
    defaults = {"batch_size": BATCH_SIZE, "multiprocessing_context": context}
    return DataLoader(dataset, num_workers=num_workers, **(defaults | options))


def as_it_is(batch: Tensors) -> Tensors:
    """The collate function of datasets whose items are batches."""
    return batch


def stored_bytes(path: Path) -> int:
    """Of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
