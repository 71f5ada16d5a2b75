"""Distil a student from a cache with Hugging Face's Trainer.

    python examples/hf_trainer.py --output run                      # a tiny cache and student
    torchrun --nproc-per-node 2 examples/hf_trainer.py --output run --cache my-cache --student name

Started again with the same output it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse

import torch
from tiny_run import add_arguments, cache_of, student_of
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from sparselogits.integrations.transformers import (
    SparseKDOptions,
    SparseKDTrainerMixin,
    cache_dataset,
)


class SparseKDTrainer(SparseKDTrainerMixin, Trainer):
    """A Trainer whose loss is the distance to the teacher's distributions."""


def main() -> None:
    parser = add_arguments(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    parser.add_argument("--accumulate", type=int, default=1, help="batches per step")
    parser.add_argument("--alpha", type=float, default=0.0, help="share of the next tokens")
    options = parser.parse_args()
    args = TrainingArguments(
        f"{options.output}/trainer",
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
        dataloader_num_workers=options.workers,
        bf16=torch.cuda.is_available(),
        save_steps=options.save_every,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
    )
    with args.main_process_first():
        cache = cache_of(options)
    trainer = SparseKDTrainer(
        student_of(options, cache),
        args,
        kd=SparseKDOptions(alpha=options.alpha),
        train_dataset=cache_dataset(args, cache),
        eval_dataset=cache_dataset(args, cache, evaluation=True),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))
    print(f"eval_loss: {trainer.evaluate()['eval_loss']:.4f} nats a position")


if __name__ == "__main__":
    main()
