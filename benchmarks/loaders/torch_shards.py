"""Shards of tensors written by `torch.save`, mapped by `torch.load`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from samples import LENGTH, Sample

from loaders.base import Loader, Tensors, as_it_is, data_loader
from loaders.raw_records import IGNORED_LABEL

_SEQUENCES_OF_A_SHARD = 64


class Shards:
    """A map-style dataset."""

    def __init__(self, files: list[Path]) -> None:
        self._shards = [torch.load(file, mmap=True) for file in files]

    def __len__(self) -> int:
        return sum(len(shard["tokens"]) for shard in self._shards)

    def __getitems__(self, indices: list[int]) -> Tensors:
        places = [divmod(index, _SEQUENCES_OF_A_SHARD) for index in indices]
        input_ids = torch.stack([self._shards[s]["tokens"][i] for s, i in places]).long()
        labels = torch.full_like(input_ids, IGNORED_LABEL)
        labels[:, :-1] = input_ids[:, 1:]
        entries = torch.cat([self._shards[s]["entries"][i] for s, i in places])
        offsets = torch.zeros(len(entries) + 1, dtype=torch.int64)
        torch.cumsum(entries, 0, out=offsets[1:])
        columns = [self._entries(s, i) for s, i in places]
        ids, counts = (torch.cat(column) for column in zip(*columns, strict=True))
        return input_ids, labels, offsets, ids, counts.float() / self._shards[0]["rounds"]

    def _entries(self, number: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        shard = self._shards[number]
        own = slice(int(shard["starts"][place]), int(shard["starts"][place + 1]))
        return shard["token_ids"][own], shard["counts"][own]


class TorchShards(Loader):
    """Dictionaries of the raw arrays of 64 sequences."""

    name = "torch.save shards"
    settings = "raw arrays of 64 sequences a file, `torch.load(mmap=True)`, all files open"

    def write(self, path: Path, sample: Sample) -> None:
        path.mkdir()
        for number, first in enumerate(range(0, len(sample.tokens), _SEQUENCES_OF_A_SHARD)):
            last = min(first + _SEQUENCES_OF_A_SHARD, len(sample.tokens))
            part = sample.select(np.arange(first, last))
            columns = {
                "tokens": part.tokens.astype(np.int32),
                "entries": np.diff(part.offsets).astype(np.uint8).reshape(-1, LENGTH),
                "token_ids": part.token_ids.astype(np.int32),
                "counts": part.counts.astype(np.uint8),
                "starts": part.offsets[::LENGTH],
            }
            tensors = {name: torch.from_numpy(column) for name, column in columns.items()}
            torch.save(tensors | {"rounds": part.rounds}, path / f"{number:05}.pt")

    def open(self, path: Path, shuffle: bool) -> Any:
        return Shards(sorted(path.glob("*.pt"))), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        dataset, shuffle = opened
        loader: Iterable[Tensors] = data_loader(
            dataset, num_workers, shuffle=shuffle, collate_fn=as_it_is
        )
        return loader


LOADERS = [TorchShards()]
