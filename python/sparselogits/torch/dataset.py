"""SparseLogitDataset: a cache as a repeatable stream of whole batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

import sparselogits
from sparselogits.alignment import TokenSource
from sparselogits.errors import InvalidArgumentError, MismatchError
from sparselogits.torch.batch import Batch
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.plan_reader import PlanReader
from sparselogits.torch.schedule import Schedule

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_STATE_VERSION = 1
_MAX_EPOCH = 1 << 64


class SparseLogitDataset(IterableDataset[Batch]):
    """One epoch of a cache as whole batches, in an order that any machine can repeat.

    `batch_size` counts sequences per rank. What the ranks see together at a step depends on the
    seed, the epoch and `batch_size * world_size` only: not on the number of ranks or workers.

    Use it bare, or through `DataLoader(dataset, batch_size=None, num_workers=m)`: `batch_size=None`
    because the items are batches already. Call `set_epoch` before each epoch, as with torch's
    `DistributedSampler`; without it every pass repeats the same order.

    The position of a training run is a small dictionary:

    * Bare, or with `num_workers=0`: `state_dict()` counts the batches that were handed out.
    * `torchdata.stateful_dataloader.StatefulDataLoader`: use the loader's own `state_dict()`.
    * Plain `DataLoader` with workers: these run ahead in other processes, so only the training
      loop knows how many batches it used. `state_after(n)` is the state after n of them.

    `load_state_dict` makes the passes of that epoch begin where the state says.

    Args:
        cache: An open cache, or its path.
        batch_size: Sequences per batch of this rank.
        shuffle: A new pseudo-random order each epoch, else the order of the cache.
        seed: Chooses the orders, in [0, 2^64). The same on all ranks.
        rank, world_size: This process among how many.
        drop_last: Leave out the sequences that do not fill a step on all ranks. Without it the
            last batch may be smaller, and some ranks may have none: not for collective training.
        input_ids: The tokens, `input_ids[i]` being the 1-D array of the cache's sequence i. Needed
            where the cache stores none. They are checked against the cache's fingerprints as they
            are read.
        pad_token_id: Fills `input_ids` behind windows that are shorter than the longest of a batch.
        epoch: The first epoch.

    Raises:
        InvalidArgumentError: An argument makes no sense, or the tokens are nowhere.
        FingerprintMismatchError: While iterating: given tokens are not those the teacher saw.
    """

    _epoch: int
    _start: int  # step at which a pass begins
    _step: int  # steps behind the batch that was last handed out
    _origin: int  # step from which the steps are dealt to the workers

    def __init__(
        self,
        cache: Cache | str | os.PathLike[str],
        batch_size: int = 8,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        *,
        drop_last: bool = True,
        input_ids: TokenSource | None = None,
        pad_token_id: int = 0,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        if isinstance(cache, (str, os.PathLike)):
            cache = sparselogits.open(cache)
        if input_ids is None and not cache.config.store_tokens:
            raise InvalidArgumentError(
                "the cache stores no tokens: pass input_ids, the token windows it was made from"
            )
        if input_ids is not None and len(input_ids) < len(cache):
            raise InvalidArgumentError(
                f"input_ids has {len(input_ids)} windows and the cache {len(cache)} sequences"
            )
        self.cache = cache
        self.schedule = Schedule(
            num_sequences=len(cache),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self._plan_reader = PlanReader([cache], input_ids=[input_ids], pad_token_id=pad_token_id)
        self._pass_in: int | None = None  # the process that has begun a pass
        self._begin(_checked_epoch(epoch), 0)

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
        if _checked_epoch(epoch) != self._epoch:
            self._begin(epoch, 0)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was last handed out, in this process."""
        state = self._state(self._step)
        if get_worker_info() is not None:
            state["origin"] = self._origin
        return state

    def state_after(self, num_batches: int) -> dict[str, Any]:
        """The position after the first `num_batches` batches of a pass, however it was loaded."""
        step = self._start + num_batches
        if not 0 <= num_batches <= self.schedule.num_steps - self._start:
            raise InvalidArgumentError(
                f"num_batches is {num_batches}; the pass has "
                f"{self.schedule.num_steps - self._start} batches"
            )
        return self._state(step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues at a position; the number of ranks and workers may have changed.

        Raises:
            MismatchError: The state belongs to another cache, seed, shuffle or global batch.
        """
        if state.get("version") != _STATE_VERSION:
            raise MismatchError(
                f"the state has version {state.get('version')}; this release reads {_STATE_VERSION}"
            )
        here = self._state(0)
        for name in ("cache", "seed", "shuffle", "global_batch"):
            if state.get(name) != here[name]:
                raise MismatchError(
                    f"the state was saved with {name} {state.get(name)!r} and this dataset has "
                    f"{here[name]!r}"
                )
        consumed = state["consumed"]
        step = -(-consumed // self.schedule.global_batch)
        if consumed < 0 or consumed != self.schedule.consumed_after(step):
            raise MismatchError(f"consumed is {consumed}, which is not the end of any step")
        self._begin(_checked_epoch(state["epoch"]), step, state.get("origin"))

    def __iter__(self) -> Iterator[Batch]:
        """A pass from the position that `set_epoch` or `load_state_dict` chose, to the end."""
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None and self._pass_in == os.getpid() and self.schedule.shuffle:
            raise InvalidArgumentError(
                "persistent_workers keep their own copy of the dataset, which set_epoch cannot "
                "reach: every epoch would repeat the first order"
            )
        self._pass_in = os.getpid()
        # Torch asks worker 0 first, so that worker 0 has to have the step the pass starts with.
        first = self._start + (self._origin + number - self._start) % count
        permutation = self.schedule.permutation(self._epoch)
        self._step = self._start
        for step in range(first, self.schedule.num_steps, count):
            indices = self.schedule.indices(permutation, step)
            if len(indices) == 0:
                continue
            batch = self._plan_reader.read(BatchPlan.of_sequences(indices))
            self._step = step + 1  # before it is handed out: afterwards nobody may ask again
            yield batch

    def _begin(self, epoch: int, step: int, origin: int | None = None) -> None:
        self._epoch = epoch
        self._start = self._step = step
        self._origin = step if origin is None else origin

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "version": _STATE_VERSION,
            "cache": self.cache.digest,
            "seed": self.schedule.seed,
            "epoch": self._epoch,
            "consumed": self.schedule.consumed_after(step),
            "shuffle": self.schedule.shuffle,
            "global_batch": self.schedule.global_batch,
        }


def _checked_epoch(epoch: int) -> int:
    if not 0 <= epoch < _MAX_EPOCH:
        raise InvalidArgumentError(f"epoch is {epoch}; it must be in [0, 2^64)")
    return epoch
