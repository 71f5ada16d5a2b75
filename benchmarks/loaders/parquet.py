"""Parquet files, read by pyarrow: row groups in any order, records in that of their row group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from samples import Sample
from torch.utils.data import IterableDataset, get_worker_info

from loaders.base import BATCH_SIZE, Loader, Tensors, data_loader
from loaders.faults_writers import write_with
from loaders.raw_records import Decoder


class RowGroups(IterableDataset[Tensors]):
    """Batches within shuffled row groups."""

    def __init__(self, files: list[Path], decoder: Decoder, shuffle: bool) -> None:
        self._files = files
        self._decoder = decoder
        self._shuffle = shuffle
        self.epoch = 0

    def __iter__(self) -> Iterator[Tensors]:
        files = [pq.ParquetFile(file) for file in self._files]
        groups = [(file, group) for file in files for group in range(file.num_row_groups)]
        rng = np.random.default_rng(self.epoch)
        if self._shuffle:
            groups = [groups[i] for i in rng.permutation(len(groups))]
        worker = get_worker_info()
        for file, group in groups if worker is None else groups[worker.id :: worker.num_workers]:
            records = file.read_row_group(group).column("record")
            order = np.arange(len(records))
            if self._shuffle:
                rng.shuffle(order)
            for i in range(0, len(order), BATCH_SIZE):
                buffers = [records[int(j)].as_buffer() for j in order[i : i + BATCH_SIZE]]
                yield self._decoder(buffers)


class Parquet(Loader):
    """Row groups of 64 records."""

    name = "Parquet (pyarrow)"
    settings = "defaults, row groups of 64 records, `read_row_group`"
    random = "row groups, and records within each"

    def write(self, path: Path, sample: Sample) -> None:
        write_with("parquet", path, sample)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        files = sorted(path.glob("*.parquet"))
        return RowGroups(files, Decoder(int((path / "rounds").read_text())), shuffle)

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        opened.epoch = epoch
        loader: Iterable[Tensors] = data_loader(opened, num_workers, batch_size=None)
        return loader


LOADERS = [Parquet()]
