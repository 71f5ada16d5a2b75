"""Which sequences make which batch: a pure function of seed, epoch, step and rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.permutation import Permutation

_MAX_KEY = 1 << 64


@dataclass(frozen=True)
class Schedule:
    """The order of an epoch over N sequences.

    Step t takes the places t·G to (t + 1)·G of a permutation that seed and epoch choose, G being
    `batch_size * world_size`; rank r has the r-th part of them. So the global batches depend on
    neither the number of ranks nor that of workers, as long as G stays.

    Attributes:
        num_sequences: N.
        batch_size: Sequences per step and rank.
        shuffle: Without it the permutation is the identity.
        seed: In [0, 2^64).
        rank, world_size: This process among how many.
        drop_last: Leave out the last N mod G places. Otherwise they make a last step, in which
            ranks have batches of different sizes or none.
    """

    num_sequences: int
    batch_size: int
    shuffle: bool
    seed: int
    rank: int
    world_size: int
    drop_last: bool

    def __post_init__(self) -> None:
        for name, minimum in (("batch_size", 1), ("world_size", 1), ("rank", 0), ("seed", 0)):
            if getattr(self, name) < minimum:
                raise InvalidArgumentError(
                    f"{name} is {getattr(self, name)}; it must be at least {minimum}"
                )
        if self.rank >= self.world_size:
            raise InvalidArgumentError(
                f"rank is {self.rank}; it must be below world_size, {self.world_size}"
            )
        if self.seed >= _MAX_KEY:
            raise InvalidArgumentError(f"seed is {self.seed}; it must be below 2^64")
        if self.drop_last and self.num_sequences < self.global_batch:
            raise InvalidArgumentError(
                f"the cache has {self.num_sequences} sequences and a step takes "
                f"{self.global_batch} (batch_size {self.batch_size} on {self.world_size} ranks): "
                "drop_last leaves nothing"
            )

    @property
    def global_batch(self) -> int:
        """G, the sequences of a step on all ranks."""
        return self.batch_size * self.world_size

    @property
    def num_steps(self) -> int:
        """Steps of an epoch, on all ranks alike."""
        full, rest = divmod(self.num_sequences, self.global_batch)
        return full if self.drop_last or rest == 0 else full + 1

    @property
    def num_batches(self) -> int:
        """Steps of an epoch in which this rank has a batch."""
        steps = self.num_steps
        return steps - 1 if steps and len(self._places(steps - 1)) == 0 else steps

    def consumed_after(self, steps: int) -> int:
        """Sequences that all ranks together have used after so many steps."""
        return min(steps * self.global_batch, self.num_sequences)

    def permutation(self, epoch: int) -> Permutation | None:
        """The order of an epoch; None is the identity."""
        if not self.shuffle or self.num_sequences == 0:
            return None
        return Permutation(self.num_sequences, (self.seed, epoch))

    def indices(self, permutation: Permutation | None, step: int) -> npt.NDArray[np.int64]:
        """Cache indices of this rank's batch of a step, in the order of its rows."""
        places = self._places(step)
        return places if permutation is None else permutation(places)

    def _places(self, step: int) -> npt.NDArray[np.int64]:
        start = step * self.global_batch + self.rank * self.batch_size
        stop = min(start + self.batch_size, self.num_sequences)
        return np.arange(start, max(start, stop), dtype=np.int64)
