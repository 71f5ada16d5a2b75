"""PlanReader: makes the batches that plans describe."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from itertools import starmap
from typing import TYPE_CHECKING, Any

import torch

from sparselogits.alignment import TokenSource
from sparselogits.checks import boolean, integer
from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.torch.batch import Batch, batch_from_arrays
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.given_tokens import fill_given_tokens
from sparselogits.torch.plan_source import CachePlans
from sparselogits.torch.read_ahead import Arrays, read_ahead

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_MAX_TOKEN = (1 << 63) - 1
_MAX_BATCHES_AHEAD = 1 << 16
_MAX_THREADS = 1 << 10
_FETCHED_AHEAD = 4  # times as many plans are known ahead where shards have to be fetched


class PlanReader:
    """Reads batches from one or several caches of one vocabulary.

    The arrays of a batch are made by one call of the core, without the GIL, in memory of batches
    that nobody holds any more. Whoever keeps a tensor of a batch keeps it for himself.

    Holds no threads and no locks: those of `stream` belong to its iterator. May be pickled, and
    used in several threads and after a fork.

    Args:
        caches: Open caches; `BatchPlan.caches` counts in this order.
        input_ids: For each cache the tokens of its sequences, or None where those that it stores
            are meant. They are checked against the cache's fingerprints as they are read.
        pad_token_id: Fills `input_ids` behind rows that are shorter than the longest of a batch.
        prefetch_batches: Batches that `stream` has in the making while one is used; 0 makes each
            when it is asked for, in the thread that asks.
        num_threads: Threads of an iterator of `stream`; each makes whole batches.
        pin_memory: Whether batches lie in page-locked memory.

    Raises:
        InvalidArgumentError: An argument makes no sense, the tokens of a cache are nowhere, or
            memory is to be pinned where there is no CUDA.
        VocabularyMismatchError: The caches differ in their vocabulary.
    """

    def __init__(
        self,
        caches: Sequence[Cache],
        *,
        input_ids: Sequence[TokenSource | None] | None = None,
        pad_token_id: int = 0,
        prefetch_batches: int = 2,
        num_threads: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._caches = tuple(caches)
        self._sources = (None,) * len(self._caches) if input_ids is None else tuple(input_ids)
        self._pad_token_id = integer("pad_token_id", pad_token_id, -_MAX_TOKEN, _MAX_TOKEN)
        self._num_ahead = integer("prefetch_batches", prefetch_batches, 0, _MAX_BATCHES_AHEAD)
        self._num_threads = integer("num_threads", num_threads, 1, _MAX_THREADS)
        self._pin_memory = boolean("pin_memory", pin_memory)
        self._source: CachePlans | None = None  # made when it is first needed
        _check_caches(self._caches, self._sources)
        if pin_memory and not torch.cuda.is_available():
            raise InvalidArgumentError("pin_memory is True, but there is no CUDA device to pin for")

    def read(self, plan: BatchPlan) -> Batch:
        """The batch that a plan describes, made in the calling thread.

        Raises:
            SequenceNotFoundError: A sequence is not from 0 to len(cache) - 1.
            InvalidArgumentError: There is no such cache, or a piece ends behind its sequence.
            CorruptionError: A block is damaged.
            CacheIOError: A shard of a remote cache cannot be fetched.
            FingerprintMismatchError: Given tokens are not those that the teacher saw.
        """
        return self._batch(plan, self._plans().read(plan))

    def stream(self, plans: Iterable[BatchPlan]) -> Generator[Batch, None, None]:
        """The batches of many plans, in order. An error is raised in the place of its batch.

        Plans that need shards of a remote cache are asked for further ahead, so that those are
        there in time.
        """
        if self._num_ahead == 0:
            yield from map(self.read, plans)
            return
        source = self._plans()
        announced = self._num_ahead * (_FETCHED_AHEAD if source.is_fetched else 1)
        with closing(read_ahead(plans, source, self._num_ahead, announced)) as ahead:
            yield from starmap(self._batch, ahead)  # which keeps no batch that it has given

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}

    def _plans(self) -> CachePlans:
        if self._source is None:
            self._source = CachePlans(
                self._caches, self._pad_token_id, self._num_ahead + 2, self._num_threads
            )
        return self._source

    def _batch(self, plan: BatchPlan, arrays: Arrays) -> Batch:
        if any(source is not None for source in self._sources):
            fill_given_tokens(plan, arrays, self._caches, self._sources)
        input_ids, labels, offsets, token_ids, weights, lengths, sequence_ids, _ = arrays
        batch = batch_from_arrays(
            input_ids,
            labels,
            offsets,
            token_ids,
            weights,
            vocab_size=self._caches[0].config.vocab_size,
            sequence_ids=sequence_ids,
            piece_lengths=lengths,
            row_offsets=plan.row_offsets,
        )
        return batch.pin_memory() if self._pin_memory else batch


def _check_caches(caches: Sequence[Cache], sources: Sequence[TokenSource | None]) -> None:
    if not caches:
        raise InvalidArgumentError("caches is empty; a batch has to come from somewhere")
    if len(sources) != len(caches):
        raise InvalidArgumentError(
            f"input_ids has {len(sources)} sources and caches {len(caches)} caches"
        )
    first = caches[0]
    for cache, source in zip(caches, sources, strict=True):
        if cache.config.vocab_size != first.config.vocab_size:
            raise VocabularyMismatchError(
                f"{cache.path} has a vocabulary of {cache.config.vocab_size} ids and "
                f"{first.path} one of {first.config.vocab_size}"
            )
        if source is None and not cache.config.store_tokens:
            raise InvalidArgumentError(
                f"{cache.path} stores no tokens: pass input_ids, the token windows it was made from"
            )
        if source is not None and len(source) < len(cache):
            raise InvalidArgumentError(
                f"input_ids has {len(source)} windows and {cache.path} {len(cache)} sequences"
            )
