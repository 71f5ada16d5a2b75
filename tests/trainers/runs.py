"""Short runs of the Trainer, and what they should have computed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import write_cache
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

import sparselogits as sl
from sparselogits.integrations.transformers import (
    SparseKDOptions,
    SparseKDTrainerMixin,
    cache_dataset,
)

# Rows per micro-batch differ by much: an average of their means would be wrong.
LENGTHS = [3, 4, 2, 5, 20, 24, 18, 22]


class SparseKDTrainer(SparseKDTrainerMixin, Trainer):
    """The mixin on the plain Trainer."""


def arguments(path: Path, **changes: Any) -> TrainingArguments:
    """One step of SGD that takes the whole gradient off the weights, unless changed."""
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "max_steps": 1,
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        **changes,
    }
    return TrainingArguments(str(path), **settings)


def trainer(
    path: Path, model: nn.Module, kd: SparseKDOptions | None = None, **changes: Any
) -> SparseKDTrainer:
    """A trainer on a cache of `LENGTHS` in its own order, with `arguments(**changes)`."""
    args = arguments(path / "out", **changes)
    cache = write_cache(path / "cache", LENGTHS)
    return SparseKDTrainer(
        model, args, kd=kd, train_dataset=cache_dataset(args, cache, shuffle=False)
    )


def losses_of(trainer: Trainer) -> list[float]:
    """What was logged at each step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def dense_loss(model: nn.Module, cache: sl.Cache, sequences: Iterable[int]) -> Tensor:
    """The mean cross-entropy over all positions with entries, one sequence at a time."""
    losses = []
    for index in sequences:
        record = cache[index]
        assert record.input_ids is not None
        ids = torch.from_numpy(record.input_ids.astype(np.int64))[None]
        log_p = model(input_ids=ids).logits[0].double().log_softmax(-1)
        for position in range(len(record)):
            if record.offsets[position + 1] > record.offsets[position]:
                losses.append(dense_row(log_p[position], record, position))
    return torch.stack(losses).mean()


def dense_row(log_p: Tensor, record: sl.SparseLogits, position: int) -> Tensor:
    """The cross-entropy of one position's (V,) log-probabilities."""
    entries = slice(*record.offsets[position : position + 2])
    weights = torch.from_numpy(record.weights[entries]).double()
    return -(weights * log_p[record.token_ids[entries].astype(np.int64)]).sum()


def after_one_step(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The parameters, one unit of gradient further down."""
    model.zero_grad()
    loss.backward()
    moved = {name: value.detach() - value.grad for name, value in model.named_parameters()}
    model.zero_grad()
    return moved


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], atol=atol, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
