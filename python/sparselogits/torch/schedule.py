"""Which places of an epoch make which batch: a pure function of step and rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparselogits.checks import boolean, integer
from sparselogits.errors import InvalidArgumentError

_MAX_GLOBAL_BATCH = (1 << 31) - 1


@dataclass(frozen=True)
class Schedule:
    """An epoch of N samples in steps.

    Step t takes the places t·G to (t + 1)·G, G being `batch_size * world_size`; rank r has the r-th
    part of them. So the global batches depend on neither the number of ranks nor that of workers,
    as long as G stays.

    Attributes:
        num_samples: N.
        batch_size: Samples per step and rank.
        rank, world_size: This process among how many.
        drop_last: Leave out the last N mod G places. Otherwise they make a last step, in which
            ranks have batches of different sizes or none.
    """

    num_samples: int
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("world_size", 1), ("rank", 0)):
            integer(name, getattr(self, name), least, _MAX_GLOBAL_BATCH)
        boolean("drop_last", self.drop_last)
        if self.rank >= self.world_size:
            raise InvalidArgumentError(
                f"rank is {self.rank}; it must be below world_size, {self.world_size}"
            )
        step = f"(batch_size {self.batch_size} on {self.world_size} ranks)"
        if self.global_batch > _MAX_GLOBAL_BATCH:
            raise InvalidArgumentError(
                f"a step takes {self.global_batch} samples {step}; at most {_MAX_GLOBAL_BATCH}"
            )
        if self.drop_last and self.num_samples < self.global_batch:
            raise InvalidArgumentError(
                f"there are {self.num_samples} samples and a step takes {self.global_batch} "
                f"{step}: drop_last leaves nothing"
            )

    @property
    def global_batch(self) -> int:
        """G, the samples of a step on all ranks."""
        return self.batch_size * self.world_size

    @property
    def num_steps(self) -> int:
        """Steps of an epoch, on all ranks alike."""
        full, rest = divmod(self.num_samples, self.global_batch)
        return full if self.drop_last or rest == 0 else full + 1

    @property
    def num_batches(self) -> int:
        """Steps of an epoch in which this rank has a batch: all, or all but the last."""
        steps = self.num_steps
        return steps - 1 if steps and len(self.places(steps - 1)) == 0 else steps

    def consumed_after(self, steps: int) -> int:
        """Samples that all ranks together have used after so many steps."""
        return min(steps * self.global_batch, self.num_samples)

    def steps_of(self, consumed: int) -> int | None:
        """The inverse of `consumed_after`; None where no step ends there."""
        steps = -(-consumed // self.global_batch)
        return steps if consumed >= 0 and consumed == self.consumed_after(steps) else None

    def places(self, step: int) -> npt.NDArray[np.int64]:
        """Of this rank's batch of a step, in the order of its rows."""
        start = step * self.global_batch + self.rank * self.batch_size
        stop = min(start + self.batch_size, self.num_samples)
        return np.arange(start, max(start, stop), dtype=np.int64)
