"""SparseLogitDataset: caches as a repeatable stream of whole batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from sparselogits.checks import integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.reader import Cache
from sparselogits.torch.batch import Batch
from sparselogits.torch.cache_list import CacheFilter, CacheList, CacheOrPath
from sparselogits.torch.course import Course
from sparselogits.torch.loader_state import loader_state
from sparselogits.torch.plan_reader import PlanReader
from sparselogits.torch.schedule import Schedule
from sparselogits.torch.selection import SequenceFilter
from sparselogits.torch.shuffling import Shuffling
from sparselogits.torch.state import MAX_EPOCH, count
from sparselogits.torch.windows import WindowRule


class SparseLogitDataset(IterableDataset[Batch]):
    """One epoch of a cache, or of several, as whole batches, in an order that any machine repeats.

    `batch_size` counts samples per rank. What the ranks see together at a step depends on the seed,
    the epoch and `batch_size * world_size` only: not on the number of ranks or workers.

    Use it bare, or through `DataLoader(dataset, batch_size=None, num_workers=m)`: `batch_size=None`
    because the items are batches already. Call `set_epoch` before each epoch, as with torch's
    `DistributedSampler`; without it every pass repeats the same order.

    The position of a training run is a small dictionary:

    * Bare, or with `num_workers=0`: `state_dict()` counts the batches that were handed out.
    * Plain `DataLoader` with workers: these run ahead in other processes, so only the training
      loop knows how many batches it used. `state_after(n)` is the state after n of them.
    * `torchdata.stateful_dataloader.StatefulDataLoader`: the loader's own `state_dict()`.

    `load_state_dict` takes any of them, makes the passes of that epoch begin where the state says,
    and does not ask how many ranks or workers there were.

    Args:
        cache: An open cache or its path, or a list of such. Several caches without
            `mixture_weights` are one: an epoch has every sample of all of them once.
        batch_size: Samples per batch of this rank.
        shuffle: A new pseudo-random order each epoch, else the order of the cache.
        seed: Chooses the orders, in [0, 2^64). The same on all ranks.
        rank, world_size: This process among how many.
        drop_last: Leave out the samples that do not fill a step on all ranks. Without it the
            last batch may be smaller, and some ranks may have none: not for collective training.
        input_ids: The tokens, `input_ids[i]` being the 1-D array of the cache's sequence i; for a
            list of caches a list of such, or of None. Needed where a cache stores none. They are
            checked against the cache's fingerprints as they are read.
        pad_token_id: Fills `input_ids` behind rows that are shorter than the longest of a batch.
        epoch: The first epoch.
        window: Positions of a sample; None: a sample is a whole sequence. Sequences are cut every
            `window` positions.
        cross_documents: The sequences lie end to end, in the order of the cache, and are cut every
            `window` positions across their bounds. `Batch.documents` keeps the bounds.
        drop_partial_windows: Leave out samples that are shorter than `window`: the last part of
            each sequence, or with `cross_documents` that of each cache. Otherwise they are padded.
        sequence_filter: Which sequences are used: a function of `SequenceFacts` that gives a
            boolean for each, or a list of sequence_ids.
        cache_filter: Which caches of a list are used: a function of their metadata.
        mixture_weights: One number for each cache: after n samples every cache has had its share of
            them, rounded down or up. Each is repeated as often as that needs. An epoch has as many
            samples as all caches together.
        shuffle_block: Shuffle in two levels: blocks of so many neighbouring samples, and the
            samples of `open_blocks` blocks among one another, so that a stretch of training reads
            few places of the disk.
        open_blocks: Blocks that are mixed with one another.
        prefetch_batches, num_threads, pin_memory: See `PlanReader`.

    Raises:
        InvalidArgumentError: An argument makes no sense, or the tokens are nowhere.
        MismatchError: Caches differ in vocabulary, tokenizer or temperature.
        FingerprintMismatchError: While iterating: given tokens are not those the teacher saw.
    """

    _epoch: int
    _start: int  # step at which a pass begins
    _origin: int  # step from which the steps are dealt to the workers
    _reached: tuple[int, int]  # epoch and steps behind the batch that was last handed out

    def __init__(
        self,
        cache: CacheOrPath | Sequence[CacheOrPath],
        batch_size: int = 8,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        drop_last: bool = True,
        input_ids: Any = None,
        pad_token_id: int = 0,
        epoch: int = 0,
        window: int | None = None,
        cross_documents: bool = False,
        drop_partial_windows: bool = False,
        sequence_filter: SequenceFilter | None = None,
        cache_filter: CacheFilter | None = None,
        mixture_weights: Sequence[float | Fraction] | None = None,
        shuffle_block: int | None = None,
        open_blocks: int = 8,
        prefetch_batches: int = 2,
        num_threads: int = 1,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        chosen = CacheList.of(cache, input_ids, mixture_weights, cache_filter)
        self.caches = chosen.caches
        self._course = Course.of(
            chosen,
            WindowRule(window, cross_documents, drop_partial_windows),
            Shuffling(shuffle, seed, shuffle_block, open_blocks),
            sequence_filter,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self._plan_reader = PlanReader(
            chosen.caches,
            input_ids=chosen.sources,
            pad_token_id=pad_token_id,
            prefetch_batches=prefetch_batches,
            num_threads=num_threads,
            pin_memory=pin_memory,
        )
        self._pass_in: int | None = None  # the process that has begun a pass
        self._begin(integer("epoch", epoch, 0, MAX_EPOCH), 0)

    @property
    def cache(self) -> Cache:
        """The one cache.

        Raises:
            InvalidArgumentError: There are several; see `caches`.
        """
        if len(self.caches) > 1:
            raise InvalidArgumentError(f"the dataset has {len(self.caches)} caches; see `caches`")
        return self.caches[0]

    @property
    def schedule(self) -> Schedule:
        """How an epoch is cut into steps."""
        return self._course.schedule

    @property
    def epoch(self) -> int:
        """The epoch that a pass goes through."""
        return self._epoch

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self.schedule.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the passes that begin from now on.

        Naming the epoch that is set already changes nothing, so that a loop over epochs goes on
        in the middle of the first one after `load_state_dict`.
        """
        if integer("epoch", epoch, 0, MAX_EPOCH) != self._epoch:
            self._begin(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was last handed out, in this process.

        Behind the last batch, while the pass goes on, that is the end of the epoch: a pass from
        there is empty. Once the pass has ended it is the beginning of the next epoch.
        """
        epoch, step = self._reached
        state = self._course.state(epoch, step)
        if get_worker_info() is not None:
            state["origin"] = self._origin
        return state

    def state_after(self, num_batches: int) -> dict[str, Any]:
        """The position after the first `num_batches` batches of a pass, however it was loaded."""
        left = self.schedule.num_steps - self._start
        if not 0 <= num_batches <= left:
            raise InvalidArgumentError(f"num_batches is {num_batches}; the pass has {left} batches")
        return self._course.state(self._epoch, self._start + num_batches)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at a position; the number of ranks and workers may have changed.

        Args:
            state: From `state_dict` or `state_after`, or the `state_dict()` of a
                `StatefulDataLoader` over such a dataset, whatever its number of workers.

        Raises:
            MismatchError: The state belongs to another cache, seed, global batch, shuffle, window,
                filter or mixture; says which.
        """
        loader = loader_state(state)
        own = state if loader is None else loader.dataset_state
        epoch, step = self._course.position(own)
        origin = count(own, "origin", self.schedule.num_steps) if "origin" in own else None
        if loader is not None and origin is not None:  # the first worker's position is its own
            step, origin = origin + loader.batches, None
            if loader.finished:
                epoch, step = epoch + 1, 0
        self._begin(epoch, step, origin)

    def __iter__(self) -> Iterator[Batch]:
        """A pass from the position that `set_epoch` or `load_state_dict` chose, to the end."""
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            self._refuse_persistence()
        self._pass_in = os.getpid()
        epoch = self._epoch
        # Torch asks worker 0 first, so that worker 0 has to have the step the pass starts with.
        first = self._start + (self._origin + number - self._start) % count
        self._reached = epoch, self._start
        steps = range(first, self.schedule.num_batches, count)
        with closing(self._plan_reader.stream(self._course.plans(epoch, steps))) as stream:
            for step in steps:
                yield self._handed_out(next(stream), epoch, step)  # no name keeps it in memory
        # Other workers may have batches left when this one has not.
        if worker is None and epoch < MAX_EPOCH:
            self._reached = epoch + 1, 0

    def _handed_out(self, batch: Batch, epoch: int, step: int) -> Batch:
        self._reached = epoch, step + 1  # before it goes: afterwards nobody may ask again
        return self._course.finished(batch)

    def _refuse_persistence(self) -> None:
        again = self._pass_in == os.getpid()
        if again and (self._course.shuffles or self._start > 0):
            raise InvalidArgumentError(
                "persistent_workers keep their own copy of the dataset, which set_epoch cannot "
                "reach: every epoch would repeat the first order and begin where it began"
            )

    def _begin(self, epoch: int, step: int, origin: int | None = None) -> None:
        self._epoch = epoch
        self._start = step
        self._origin = step if origin is None else origin
        self._reached = epoch, step
