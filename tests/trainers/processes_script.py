"""Run by torchrun: trains and evaluates on the cache given, and rank 0 writes what came out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import SparseKDTrainer, arguments, losses_of, parameters
from tiny import rows_of, student

import sparselogits as sl
from sparselogits import InvalidArgumentError
from sparselogits.integrations.transformers import SparseLogitCollator, cache_dataset


def run(source: str, cache: sl.Cache, batch_size: int, output: Path) -> dict[str, Any]:
    """Two updates, of the cache's first sequences, then an evaluation of all of them."""
    args = arguments(
        output,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=6,
        gradient_accumulation_steps=2,
        max_steps=2,
        learning_rate=0.5,
        train_sampling_strategy="sequential",
        eval_on_start=True,
    )
    batches = source == "cache"
    trainer = SparseKDTrainer(
        student(tie_word_embeddings=source == "tied"),
        args,
        train_dataset=cache_dataset(args, cache, shuffle=False) if batches else rows_of(cache),
        eval_dataset=cache_dataset(args, cache, evaluation=True) if batches else rows_of(cache),
        data_collator=SparseLogitCollator(cache),
    )
    trainer.train()
    trainer.evaluate()
    return {
        "losses": losses_of(trainer),
        "eval_losses": [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e],
        "parameters": parameters(trainer.model),
        "processes": trainer.args.world_size,
    }


def check_bare_model_is_refused(cache: sl.Cache, output: Path) -> None:
    """An evaluation before the training leaves DDP out; see `check_wrapped`."""
    args = arguments(output)
    trainer = SparseKDTrainer(
        student(),
        args,
        train_dataset=cache_dataset(args, cache),
        eval_dataset=cache_dataset(args, cache, evaluation=True),
    )
    trainer.evaluate()
    with pytest.raises(InvalidArgumentError, match=r"evaluate\(\) called before train"):
        trainer.train()


def main() -> None:
    folder = Path(sys.argv[1])
    cache = sl.open(folder / "cache")
    found = {source: run(source, cache, 2, folder / "out") for source in ("cache", "rows", "tied")}
    check_bare_model_is_refused(cache, folder / "out")
    if torch.distributed.get_rank() == 0:
        torch.save(found, folder / "found.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
