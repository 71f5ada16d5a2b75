"""Hugging Face datasets: Parquet files that become an Arrow file, which is mapped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
from samples import Sample

from loaders.base import Loader, Tensors, data_loader
from loaders.faults_writers import write_with
from loaders.raw_records import Decoder


class Datasets(Loader):
    """A map-style dataset."""

    name = "HF datasets (Parquet to Arrow)"
    settings = '`load_dataset("parquet")` in a `DataLoader`, a column of bytes, defaults'

    def write(self, path: Path, sample: Sample) -> None:
        write_with("parquet", path, sample)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        datasets.disable_progress_bars()
        files = sorted(map(str, path.glob("*.parquet")))
        cache = str(path.parent / f"{path.name}-arrow")
        dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        return dataset, Collate(int((path / "rounds").read_text())), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        dataset, collate, shuffle = opened
        loader: Iterable[Tensors] = data_loader(
            dataset, num_workers, shuffle=shuffle, collate_fn=collate
        )
        return loader


class Collate(Decoder):
    """Takes the records out of their columns."""

    def __call__(self, records: Any) -> Tensors:
        return super().__call__([record["record"] for record in records])


LOADERS = [Datasets()]
