"""Raw arrays in files, mapped: what a loader without a format does. The ratios are to this one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from samples import LENGTH, Sample

from loaders.base import BATCH_SIZE, Loader, Tensors, as_it_is, data_loader
from loaders.raw_records import Decoder

_DTYPES = {"tokens": "<i4", "entries": "u1", "token_ids": "<i4", "counts": "u1", "starts": "<i8"}


@dataclass
class Mapped:
    """A map-style dataset: sequences of files that are mapped.

    Attributes:
        starts: (N + 1,), the first entry of each sequence.
    """

    decoder: Decoder
    tokens: npt.NDArray[np.int32]
    entries: npt.NDArray[np.uint8]
    token_ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitems__(self, indices: list[int]) -> Tensors:
        own = [slice(self.starts[i], self.starts[i + 1]) for i in indices]
        return self.decoder.tensors(
            self.tokens.reshape(-1, LENGTH)[indices],
            self.entries.reshape(-1, LENGTH)[indices].reshape(-1),
            np.concatenate([self.token_ids[part] for part in own]),
            np.concatenate([self.counts[part] for part in own]),
        )


class Memmap(Loader):
    """One file an array."""

    name = "np.memmap"
    settings = "raw arrays, sliced and put together by NumPy in a `DataLoader`"

    def write(self, path: Path, sample: Sample) -> None:
        path.mkdir()
        columns = {
            "tokens": sample.tokens,
            "entries": np.diff(sample.offsets),
            "token_ids": sample.token_ids,
            "counts": sample.counts,
            "starts": sample.offsets[::LENGTH],
        }
        for name, dtype in _DTYPES.items():
            columns[name].astype(dtype).tofile(path / name)
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        # Plain arrays over the maps: slices of np.memmap objects cost microseconds each.
        maps = {
            name: np.asarray(np.memmap(path / name, dtype, "r")) for name, dtype in _DTYPES.items()
        }
        return Mapped(Decoder(int((path / "rounds").read_text())), **maps), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        dataset, shuffle = opened
        loader: Iterable[Tensors] = data_loader(
            dataset, num_workers, shuffle=shuffle, collate_fn=as_it_is, batch_size=BATCH_SIZE
        )
        return loader


LOADERS = [Memmap()]
