"""Course: the batches of every epoch, as plans, before anything is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparselogits.errors import InvalidArgumentError, MismatchError
from sparselogits.torch.batch import Batch
from sparselogits.torch.batch_plan import BatchPlan
from sparselogits.torch.cache_list import CacheList
from sparselogits.torch.epochs import Epochs, Mixture, Union
from sparselogits.torch.interleave import shares_of
from sparselogits.torch.samples import Samples
from sparselogits.torch.schedule import Schedule
from sparselogits.torch.selection import SequenceFilter, select, selection_digest
from sparselogits.torch.shuffling import Shuffling
from sparselogits.torch.state import StateKey
from sparselogits.torch.windows import WindowRule

_SAMPLES_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Course:
    """What a dataset reads at each step, and how it names a position there.

    Attributes:
        schedule: Which places of an epoch are those of a step.
        shuffles: Whether epochs differ in their order.
    """

    schedule: Schedule
    shuffles: bool
    _samples: Samples
    _epochs: Epochs
    _key: StateKey
    _rule: WindowRule

    @classmethod
    def of(
        cls,
        chosen: CacheList,
        rule: WindowRule,
        shuffling: Shuffling,
        sequence_filter: SequenceFilter | None,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        drop_last: bool,
    ) -> Course:
        """The course through some caches; see `SparseLogitDataset` for the arguments."""
        selections = select(chosen.caches, sequence_filter)
        samples = Samples.of_caches(chosen.caches, selections, rule)
        shares = None if chosen.weights is None else shares_of(chosen.weights)
        epochs: Epochs = Union(samples.sizes, shuffling)
        if shares is not None:
            _check_sizes(chosen, samples.sizes)
            epochs = Mixture(samples.sizes, shares, shuffling)
        schedule = Schedule(epochs.num_samples, batch_size, rank, world_size, drop_last)
        settings = {
            "shuffle": shuffling.setting(),
            "window": rule.setting(),
            "filter": {"sequence_filter": selection_digest(selections)},
            "mixture": {"mixture_shares": shares},
        }
        key = StateKey(chosen.digest, shuffling.seed, schedule.global_batch, settings)
        return cls(schedule, shuffling.shuffle, samples, epochs, key, rule)

    def plans(self, epoch: int, steps: range) -> Iterator[BatchPlan]:
        """The batches of some steps, in turn."""
        draw = self._epochs.draw(epoch)
        # Whatever is asked of NumPy costs the same for one sample as for some hundreds.
        together = -(-_SAMPLES_AT_ONCE // self.schedule.batch_size)
        for start in range(0, len(steps), together):
            places = [self.schedule.places(step) for step in steps[start : start + together]]
            plan = self._samples.plan(*draw(np.concatenate(places)))
            last = 0
            for batch in places:
                first, last = last, last + len(batch)
                yield plan.rows(first, last)

    def finished(self, batch: Batch) -> Batch:
        """A batch as it is handed out: one with documents has them in every epoch's every batch."""
        return batch.with_documents() if self._rule.cross_documents else batch

    def state(self, epoch: int, step: int) -> dict[str, Any]:
        """The position after so many steps of an epoch."""
        return self._key.state(epoch, self.schedule.consumed_after(step))

    def position(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """The epoch and step of a state.

        Raises:
            MismatchError: It is not one of this course.
        """
        epoch, consumed = self._key.position(state)
        step = self.schedule.steps_of(consumed)
        if step is None:
            raise MismatchError(f"consumed is {consumed}, which is not the end of any step")
        return epoch, step


def _check_sizes(chosen: CacheList, sizes: tuple[int, ...]) -> None:
    for cache, size in zip(chosen.caches, sizes, strict=True):
        if size == 0:
            raise InvalidArgumentError(f"{cache.path} has no sample to have a share of the mixture")
