"""litdata's chunks, read by its own dataset and loader."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["DISABLE_VERSION_CHECK"] = "1"  # or it asks PyPI for a newer litdata

from litdata import StreamingDataLoader, StreamingDataset
from samples import Sample

from loaders.base import BATCH_SIZE, Loader, Tensors
from loaders.faults_writers import write_with
from loaders.raw_records import Decoder


class Litdata(Loader):
    """Local chunks."""

    name = "litdata"
    settings = "`StreamingDataset(dir, shuffle=…)` in a `StreamingDataLoader`, defaults"

    def write(self, path: Path, sample: Sample) -> None:
        write_with("litdata_chunks", path, sample)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        return path, shuffle, Decoder(int((path / "rounds").read_text()))

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        path, shuffle, decoder = opened
        dataset = StreamingDataset(str(path), shuffle=shuffle, seed=epoch)
        loader: Iterable[Tensors] = StreamingDataLoader(
            dataset, batch_size=BATCH_SIZE, num_workers=num_workers, collate_fn=decoder
        )
        return loader


LOADERS = [Litdata()]
