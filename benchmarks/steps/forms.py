"""The forms of a training step that are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from sparselogits.torch import Batch, fused_linear_sparse_kd_loss
from steps.data import endless, one_entry
from steps.models import STUDENT_LAYERS, TEACHER_LAYERS, smollm2

SPARSE = "sparse targets from a compact cache"
FUSED_CE = "cross-entropy, fused head"
PLAIN_CE = "cross-entropy, F.linear + F.cross_entropy"
TORCH_CE = "cross-entropy, F.linear_cross_entropy"
AGAIN = "cross-entropy, fused head, once more"
LIVE_TEACHER = "full distillation, live teacher"
CROSS_ENTROPIES = (FUSED_CE, PLAIN_CE, TORCH_CE)
MEASURED = (SPARSE, FUSED_CE, AGAIN, PLAIN_CE, TORCH_CE, LIVE_TEACHER)
RARE = (TORCH_CE, LIVE_TEACHER)
"""Those that take several times as long, and are measured less often."""

_BATCHES_IN_MEMORY = 16


class Steps:
    """One student and one optimizer, which every form trains in turn.

    The cross-entropies read batches that are in memory, with their targets made: reading costs them
    nothing. The sparse step reads the compact cache through the dataset.

    Args:
        cache: Path of the compact cache.
        batch_size: Sequences of 512 tokens.
        forms: Which are going to run: only these are made.
    """

    def __init__(self, cache: Path, batch_size: int, forms: tuple[str, ...]) -> None:
        self.student = smollm2(STUDENT_LAYERS, seed=0).train()
        self._optimizer = torch.optim.AdamW(self.student.parameters(), lr=1e-4, fused=True)
        self._stream = endless(cache, batch_size)
        batches = list(itertools.islice(endless(cache, batch_size), _BATCHES_IN_MEMORY))
        self._memory: Iterator[Batch] = itertools.cycle(batches)
        self._one_entry = itertools.cycle([(batch, one_entry(batch)) for batch in batches])
        self._teacher = (
            smollm2(TEACHER_LAYERS, seed=1).eval() if LIVE_TEACHER in forms else torch.nn.Module()
        )

    def run(self, form: str) -> float:
        """A batch, forward, backward, optimizer; returns the loss."""
        loss = _LOSSES[form](self)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def sparse(self) -> torch.Tensor:
        batch = next(self._stream)
        return fused_linear_sparse_kd_loss(self._hidden(batch), self._head, batch.targets)

    def fused_cross_entropy(self) -> torch.Tensor:
        batch, targets = next(self._one_entry)
        return fused_linear_sparse_kd_loss(self._hidden(batch), self._head, targets)

    def plain_cross_entropy(self) -> torch.Tensor:
        batch = next(self._memory)
        logits = F.linear(self._hidden(batch), self._head)
        return F.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())

    def torch_cross_entropy(self) -> torch.Tensor:
        batch = next(self._memory)
        options = torch.nn.LinearCrossEntropyOptions()
        hidden = self._hidden(batch).flatten(0, 1)
        return F.linear_cross_entropy(hidden, self._head, batch.labels.flatten(), options=options)

    def live_teacher(self) -> torch.Tensor:
        batch = next(self._memory)
        with torch.no_grad():
            teacher = self._teacher(input_ids=batch.input_ids).logits.softmax(-1)
        logits = F.linear(self._hidden(batch), self._head)
        return F.cross_entropy(logits.flatten(0, 1), teacher.flatten(0, 1))

    def _hidden(self, batch: Batch) -> torch.Tensor:
        return self.student.model(input_ids=batch.input_ids).last_hidden_state

    @property
    def _head(self) -> torch.Tensor:
        return self.student.lm_head.weight


_LOSSES: dict[str, Callable[[Steps], torch.Tensor]] = {
    SPARSE: Steps.sparse,
    FUSED_CE: Steps.fused_cross_entropy,
    AGAIN: Steps.fused_cross_entropy,
    PLAIN_CE: Steps.plain_cross_entropy,
    TORCH_CE: Steps.torch_cross_entropy,
    LIVE_TEACHER: Steps.live_teacher,
}
