"""MDS, read by mosaicml-streaming."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from samples import Sample

from loaders.base import BATCH_SIZE, Loader, Tensors, data_loader
from loaders.faults_writers import write_with
from loaders.raw_records import Decoder

# The image datasets of `streaming` import torchvision, whose PyPI build does not load beside a
# CPU build of torch. No format depends on them.
sys.modules.setdefault("streaming.vision", types.ModuleType("streaming.vision"))

from streaming import StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402


class Mds(Loader):
    """Local shards."""

    name = "MDS (mosaicml-streaming)"
    settings = "`StreamingDataset(local=…, shuffle=…, batch_size=8)` in a `DataLoader`, defaults"

    def write(self, path: Path, sample: Sample) -> None:
        write_with("mds", path, sample)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        clean_stale_shared_memory()
        return path, shuffle, Collate(int((path / "rounds").read_text()))

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        path, shuffle, collate = opened
        # A new one each time: its file lock refuses to be forked after it was used.
        dataset = StreamingDataset(
            local=str(path), shuffle=shuffle, shuffle_seed=epoch, batch_size=BATCH_SIZE
        )
        loader: Iterable[Tensors] = data_loader(dataset, num_workers, collate_fn=collate)
        return loader


class Collate(Decoder):
    """Takes the records out of their columns."""

    def __call__(self, records: Any) -> Tensors:
        return super().__call__([record["record"] for record in records])


LOADERS = [Mds()]
