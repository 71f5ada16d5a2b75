"""SparseLogitMapDataset: the samples of caches by their number, for samplers of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from sparselogits.arrays import integer_array
from sparselogits.errors import SequenceNotFoundError
from sparselogits.torch.batch import Batch
from sparselogits.torch.batch_rows import BatchRows, stack_rows
from sparselogits.torch.cache_list import CacheFilter, CacheList, CacheOrPath
from sparselogits.torch.epochs import Union
from sparselogits.torch.plan_reader import PlanReader
from sparselogits.torch.samples import Samples
from sparselogits.torch.selection import SequenceFilter, select
from sparselogits.torch.shuffling import Shuffling
from sparselogits.torch.windows import WindowRule


class SparseLogitMapDataset(Dataset[Batch]):
    """The samples of a cache, or of several one after another, by their number.

    For torch's samplers (`DistributedSampler`, `BatchSampler`, …) and for trainers that make their
    own `DataLoader`: `DataLoader(dataset, batch_size=8, sampler=…, collate_fn=dataset.collate)`.
    A batch is one call of the core. The order and the position are the sampler's business;
    `SparseLogitDataset` brings its own.

    Pickles as paths, where no window and no filter is set.

    Args:
        cache: An open cache or its path, or a list of such.
        input_ids, pad_token_id, window, cross_documents, drop_partial_windows, sequence_filter,
            cache_filter: As in `SparseLogitDataset`.

    Raises:
        InvalidArgumentError, MismatchError: As `SparseLogitDataset`.
    """

    def __init__(
        self,
        cache: CacheOrPath | Sequence[CacheOrPath],
        *,
        input_ids: Any = None,
        pad_token_id: int = 0,
        window: int | None = None,
        cross_documents: bool = False,
        drop_partial_windows: bool = False,
        sequence_filter: SequenceFilter | None = None,
        cache_filter: CacheFilter | None = None,
    ) -> None:
        chosen = CacheList.of(cache, input_ids, None, cache_filter)
        rule = WindowRule(window, cross_documents, drop_partial_windows)
        self.caches = chosen.caches
        self._samples = Samples.of_caches(
            chosen.caches, select(chosen.caches, sequence_filter), rule
        )
        self._union = Union(self._samples.sizes, Shuffling(shuffle=False, seed=0))
        self._plan_reader = PlanReader(
            chosen.caches, input_ids=chosen.sources, pad_token_id=pad_token_id, prefetch_batches=0
        )
        self._pad_token_id = pad_token_id
        self._cross_documents = cross_documents

    def __len__(self) -> int:
        """Samples."""
        return sum(self._samples.sizes)

    def __getitem__(self, index: int) -> Batch:
        """One sample, as a batch of one row; from the end where `index` is negative.

        Raises:
            SequenceNotFoundError: Out of range; also an IndexError.
        """
        return self._read([index])

    def __getitems__(self, indices: Sequence[int]) -> BatchRows:
        """Several samples in one call of the core: what torch's loaders use where they find it."""
        return BatchRows(self._read(indices))

    def collate(self, rows: Sequence[Batch]) -> Batch:
        """A batch of the samples that a loader has fetched: its `collate_fn`."""
        return rows.batch if isinstance(rows, BatchRows) else stack_rows(rows, self._pad_token_id)

    def _read(self, indices: Sequence[int]) -> Batch:
        wanted = integer_array("indices", indices)
        wrong = wanted[(wanted < -len(self)) | (wanted >= len(self))]
        if wrong.size:
            raise SequenceNotFoundError(
                f"the dataset has {len(self)} samples, there is no index {wrong[0]}"
            )
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        batch = self._plan_reader.read(self._samples.plan(*self._union.locate(wanted)))
        return batch.with_documents() if self._cross_documents else batch
