"""CacheLoader: a dataset of whole batches as the loader of a Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sparselogits.errors import InvalidArgumentError, MismatchError
from sparselogits.torch.dataset import SparseLogitDataset
from sparselogits.torch.trainer_inputs import blank_inputs, trainer_inputs

Inputs = dict[str, Any]


class CacheLoader(DataLoader[Any]):
    """Whole batches of one rank, as `trainer_inputs` dictionaries.

    It is not given to `Accelerator.prepare`, which would deal the batches of a rank out to the
    ranks once more, or send those of rank 0 to all. The dataset knows its rank.

    Args:
        dataset: The dataset, made for the rank and world size of this process.
        rank, world_size: Of this process.
        fill_steps: Where a rank has no batch in the last step, yield an empty one, so that all
            ranks make the same number of steps: for evaluation.
        options: Of `DataLoader`: `num_workers`, `pin_memory` …

    Raises:
        InvalidArgumentError: The dataset was made for another rank or number of ranks.
    """

    def __init__(
        self,
        dataset: SparseLogitDataset,
        rank: int,
        world_size: int,
        *,
        fill_steps: bool = False,
        **options: Any,
    ) -> None:
        schedule = dataset.schedule
        if (schedule.rank, schedule.world_size) != (rank, world_size):
            raise InvalidArgumentError(
                f"the dataset is for rank {schedule.rank} of {schedule.world_size} and this is "
                f"rank {rank} of {world_size}: make it with rank=args.process_index, "
                "world_size=args.world_size"
            )
        self._source = dataset
        self._passes = _Passes(dataset)
        self._fill_steps = fill_steps
        self._used = 0  # batches of the pass that is going on
        super().__init__(self._passes, batch_size=None, collate_fn=_unchanged, **options)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self._source.schedule.num_steps if self._fill_steps else len(self._source)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()
        for _ in range(len(self) - len(self._source)):
            yield blank_inputs()

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass, other than the first after a checkpoint."""
        self._passes.skipped = self._used = 0
        self._source.set_epoch(epoch)

    def use(self, num_batches: int) -> dict[str, Any]:
        """The dataset's state after so many more batches of the pass that is going on."""
        self._used += num_batches
        return self._source.state_after(self._used)

    def begin(self) -> None:
        """The next pass begins at the start of its epoch."""
        self._passes.skipped = self._used = 0
        self._source.load_state_dict({**self._source.state_after(0), "consumed": 0})

    def resume(self, state: Mapping[str, Any], epoch: int, skipped: int) -> None:
        """The next pass goes on where a checkpoint was made.

        Args:
            state: Of the dataset, from the checkpoint.
            epoch: In which the Trainer is going to resume.
            skipped: Batches of that epoch that the Trainer is going to read and drop. They are
                placeholders: nothing is decoded for them.

        Raises:
            MismatchError: The state is of another cache, order or global batch, or the Trainer
                would go on elsewhere than where it was saved.
        """
        self._source.load_state_dict(state)
        at = (self._source.epoch, -(-state["consumed"] // self._source.schedule.global_batch))
        at_end = at == (epoch - 1, len(self._source)) and skipped == 0
        if at != (epoch, skipped) and not at_end:
            raise MismatchError(
                f"the checkpoint was made after batch {at[1]} of epoch {at[0]} and the Trainer "
                f"goes on after batch {skipped} of epoch {epoch}: gradient_accumulation_steps must "
                "be what it was"
            )
        if not at_end:
            # Workers are dealt the batches from the first placeholder on.
            self._source.load_state_dict({**state, "origin": 0})
        self._passes.skipped, self._used = skipped, 0


class _Passes(IterableDataset[Any]):
    """Passes over a dataset, the next one behind as many placeholders as will be dropped."""

    def __init__(self, dataset: SparseLogitDataset) -> None:
        super().__init__()
        self._dataset = dataset
        self.skipped = 0

    def __len__(self) -> int:
        """Sequences, which is what a Trainer calls examples."""
        schedule = self._dataset.schedule
        return schedule.consumed_after(schedule.num_steps)

    def __iter__(self) -> Iterator[Inputs | None]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for _ in range(number, self.skipped, count):
            yield None
        for batch in self._dataset:
            yield trainer_inputs(batch)


def _unchanged(item: Any) -> Any:
    return item
