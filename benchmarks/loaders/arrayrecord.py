"""ArrayRecord, read by its data source."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from samples import Sample

from loaders.base import Loader, Tensors, data_loader
from loaders.faults_writers import write_with
from loaders.raw_records import Decoder


class ArrayRecord(Loader):
    """One record a chunk, as Grain wants them."""

    name = "ArrayRecord"
    settings = "`group_size:1`, `ArrayRecordDataSource(files)` in a `DataLoader`, workers spawned"

    def write(self, path: Path, sample: Sample) -> None:
        write_with("arrayrecord", path, sample)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        files = sorted(map(str, path.glob("*.array_record")))
        return ArrayRecordDataSource(files), Decoder(int((path / "rounds").read_text())), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        source, decoder, shuffle = opened
        loader: Iterable[Tensors] = data_loader(
            source,
            num_workers,
            shuffle=shuffle,
            collate_fn=decoder,
            # A thread of its library cleans up in the background: forked workers die now and then.
            multiprocessing_context="spawn" if num_workers else None,
        )
        return loader


LOADERS = [ArrayRecord()]
