"""The paper's 24 bits an entry in a mapped file: as small as records get without a codec."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from samples import LENGTH, Sample

from loaders.base import Loader, Tensors, as_it_is, data_loader
from loaders.faults_writers import FAULTS
from loaders.raw_records import Decoder

_COUNT_BITS = 7
_BYTES_BEFORE_ENTRIES = 3 * LENGTH  # a uint16 token and a uint8 number of entries each


class Packed:
    """A map-style dataset of records as benchmarks/faults/records.py encodes them."""

    def __init__(self, path: Path) -> None:
        self._data = np.asarray(np.memmap(path / "records", np.uint8, "r"))
        self._starts = np.fromfile(path / "starts", np.int64)
        self._decoder = Decoder(int((path / "rounds").read_text()))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitems__(self, indices: list[int]) -> Tensors:
        records = [self._data[self._starts[i] : self._starts[i + 1]] for i in indices]
        tokens = np.stack([record[: 2 * LENGTH].view("<u2") for record in records])
        numbers = np.concatenate([record[2 * LENGTH : 3 * LENGTH] for record in records])
        entries = _join(np.concatenate([record[_BYTES_BEFORE_ENTRIES:] for record in records]))
        return self._decoder.tensors(
            tokens,
            numbers,
            (entries >> _COUNT_BITS).astype(np.int32),
            (entries & ((1 << _COUNT_BITS) - 1)).astype(np.uint8),
        )


def _join(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The integers of 3 bytes each, little-endian."""
    wide = np.zeros((len(packed) // 3, 4), np.uint8)
    wide[:, :3] = packed.reshape(-1, 3)
    return wide.view("<u4").reshape(-1)


class MemmapPacked(Loader):
    """One file of records, one of their places."""

    name = "np.memmap, 24-bit entries"
    settings = "17 bits an id and 7 a count, as the paper stores them; unpacked by NumPy"

    def write(self, path: Path, sample: Sample) -> None:
        if str(FAULTS) not in sys.path:
            sys.path.append(str(FAULTS))
        from records import encode

        path.mkdir()
        starts = [0]
        with (path / "records").open("wb") as file:
            for number, tokens in enumerate(sample.tokens):
                offsets = sample.offsets[number * LENGTH : (number + 1) * LENGTH + 1]
                own = slice(offsets[0], offsets[-1])
                file.write(encode(tokens, offsets, sample.token_ids[own], sample.counts[own]))
                starts.append(file.tell())
        np.array(starts, np.int64).tofile(path / "starts")
        (path / "rounds").write_text(str(sample.rounds))

    def open(self, path: Path, shuffle: bool) -> Any:
        return Packed(path), shuffle

    def batches(self, opened: Any, epoch: int, num_workers: int) -> Iterable[Tensors]:
        dataset, shuffle = opened
        loader: Iterable[Tensors] = data_loader(
            dataset, num_workers, shuffle=shuffle, collate_fn=as_it_is
        )
        return loader


LOADERS = [MemmapPacked()]
