"""The mean of a loss over all rows of an evaluation, however batches and ranks divide them."""

from __future__ import annotations

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor

from sparselogits.errors import InvalidArgumentError


class RowMean:
    """Losses of batches and their numbers of rows; nothing waits for a device between batches."""

    def __init__(self) -> None:
        self._means: list[Tensor] = []
        self._rows: list[Tensor] = []

    def add(self, mean: Tensor, rows: Tensor) -> None:
        """A batch with the mean loss `mean` of `rows` rows, both 0-dimensional."""
        self._means.append(mean.detach())
        self._rows.append(rows)

    def value(self, accelerator: Accelerator) -> float:
        """The mean over the rows of all ranks.

        Raises:
            InvalidArgumentError: There were none.
        """
        sums = torch.zeros(2, dtype=torch.float64)
        if self._means:
            rows = torch.stack(self._rows).double()
            means = torch.stack(self._means).cpu().double()
            sums = torch.stack([(means * rows).sum(), rows.sum()])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum")
        total, count = sums.tolist()
        if count == 0:
            raise InvalidArgumentError("the evaluation has no row with a target")
        return float(total / count)


def rows_once(accelerator: Accelerator, shape: torch.Size) -> Tensor | None:
    """(B, S) bool, False in what fills up the last batch of an evaluation a second time.

    accelerate gives every rank a whole last batch, with examples from the beginning of the dataset.
    None where all count.
    """
    state = accelerator.gradient_state
    if not state.end_of_dataloader or state.remainder <= 0:
        return None
    first = accelerator.process_index * shape[0]
    real = torch.arange(first, first + shape[0]) < state.remainder
    return None if bool(real.all()) else real[:, None].expand(shape)
