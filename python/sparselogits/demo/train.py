"""Two equal students on the same batches: one learns the draws, one the labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from sparselogits.demo.student import Student
from sparselogits.torch import Batch, SparseLogitDataset, fused_linear_sparse_kd_loss
from sparselogits.torch.objectives import CrossEntropy

StudentLoss = Callable[[Student, Batch], Tensor]


@dataclass
class Curve:
    """Attributes:
    steps: Where the student was evaluated.
    held_out_loss: Cross-entropy on held-out text there, nats a token.
    held_out_kl: KL(teacher ‖ student) on held-out text there, nats a position.
    """

    steps: list[int] = field(default_factory=list)
    held_out_loss: list[float] = field(default_factory=list)
    held_out_kl: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class HeldOut:
    """Attributes:
    input_ids: (M, S) int64, windows that no student trains on.
    teacher_log_probs: (M, S, V) float32.
    """

    input_ids: Tensor
    teacher_log_probs: Tensor


def distillation_loss(student: Student, batch: Batch) -> Tensor:
    """Cross-entropy to the teacher's draws, straight from the hidden states."""
    return fused_linear_sparse_kd_loss(
        student.hidden(batch.input_ids), student.head_weight, batch.targets
    )


def label_loss(student: Student, batch: Batch) -> Tensor:
    """Cross-entropy to the next token of the text: one entry a row, by the same fused loss."""
    return CrossEntropy().of_head(
        student.hidden(batch.input_ids), student.head_weight, labels=batch.labels
    )


def train(
    student: Student,
    dataset: SparseLogitDataset,
    loss_of: StudentLoss,
    held_out: HeldOut,
    *,
    steps: int,
    evaluations: int,
    learning_rate: float,
    log: Callable[[str], None],
) -> Curve:
    """AdamW with a linear warm-up and decay; evaluates at the start, the end and between."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=learning_rate, weight_decay=0.01)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1.05 - step / steps)
    )
    marks = {round(i * steps / evaluations) for i in range(evaluations + 1)}
    curve = Curve()
    for step, batch in enumerate(_repeated(dataset, steps + 1)):
        if step in marks:
            loss, kl = evaluate(student, held_out)
            curve.steps.append(step)
            curve.held_out_loss.append(loss)
            curve.held_out_kl.append(kl)
            log(f"step {step:4d}: held-out loss {loss:.3f}, KL to the teacher {kl:.3f}")
        if step < steps:
            optimizer.zero_grad(set_to_none=True)
            loss_of(student, batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return curve


@torch.inference_mode()
def evaluate(student: Student, held_out: HeldOut) -> tuple[float, float]:
    """Held-out loss (nats a token) and KL(teacher ‖ student) (nats a position)."""
    losses, divergences = [], []
    for ids, log_p in zip(held_out.input_ids, held_out.teacher_log_probs, strict=True):
        log_q = functional.log_softmax(student(ids[None])[0], dim=-1)
        losses.append(functional.nll_loss(log_q[:-1], ids[1:]))
        divergences.append((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    return float(torch.stack(losses).mean()), float(torch.stack(divergences).mean())


def _repeated(dataset: SparseLogitDataset, count: int) -> Iterator[Batch]:
    """`count` batches, epoch after epoch, each in its own order."""
    epoch = 0
    while count > 0:
        dataset.set_epoch(epoch)
        for batch in dataset:
            yield batch
            count -= 1
            if count == 0:
                return
        epoch += 1
