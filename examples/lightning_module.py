"""Distil a student from a cache with Lightning.

    python examples/lightning_module.py --output run                # a tiny cache and student
    python examples/lightning_module.py --output run --cache my-cache --student name

Started again with the same output it goes on from the last checkpoint, within the epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_run import add_arguments, cache_of, student_of

from sparselogits.integrations.lightning import SparseLogitDataModule
from sparselogits.torch import Batch, fused_linear_sparse_kd_loss


class Distillation(lightning.LightningModule):
    """A causal language model that learns a teacher's distributions."""

    def __init__(self, student: Any, learning_rate: float) -> None:
        super().__init__()
        self.student = student
        self.learning_rate = learning_rate

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        hidden = self.student.model(input_ids=batch.input_ids).last_hidden_state
        loss = fused_linear_sparse_kd_loss(hidden, self.student.lm_head.weight, batch.targets)
        print(f"step {self.global_step + 1}: loss {loss.item():.4f} nats a position")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def main() -> None:
    parser = add_arguments(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    args = parser.parse_args()
    cache = cache_of(args)
    checkpoints = Path(args.output) / "checkpoints"
    trainer = lightning.Trainer(
        max_steps=args.steps,
        max_epochs=-1,
        default_root_dir=args.output,
        callbacks=[
            ModelCheckpoint(checkpoints, save_last=True, every_n_train_steps=args.save_every)
        ],
        logger=False,
        enable_progress_bar=False,
    )
    data = SparseLogitDataModule(
        cache, batch_size=args.batch_size, seed=args.seed, num_workers=args.workers
    )
    last = checkpoints / "last.ckpt"
    trainer.fit(
        Distillation(student_of(args, cache), args.learning_rate),
        data,
        ckpt_path=last if last.exists() else None,
    )


if __name__ == "__main__":
    main()
