"""Distil a student from a cache with TRL's SFTTrainer, on rows of one's own dataset.

    python examples/trl_sft.py --output run                         # a tiny cache and student

The rows are tokenised and name their sequence of the cache. With a cache of your own, give the
dataset that it was captured from:

    python examples/trl_sft.py --output run --cache my-cache --student name --dataset rows.parquet
"""

from __future__ import annotations

import argparse

import datasets
import torch
from tiny_run import add_arguments, cache_of, student_of, windows
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from trl import SFTConfig

from sparselogits.integrations.transformers import SparseLogitCollator
from sparselogits.integrations.trl import SparseKDSFTTrainer


def main() -> None:
    parser = add_arguments(argparse.ArgumentParser(description=__doc__.split("\n")[0]))
    parser.add_argument("--dataset", help="Parquet file with input_ids and sequence_id")
    parser.add_argument("--flatten", action="store_true", help="batches without padding")
    options = parser.parse_args()
    args = SFTConfig(
        f"{options.output}/sft",
        per_device_train_batch_size=options.batch_size,
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        seed=options.seed,
        dataloader_num_workers=options.workers,
        save_steps=options.save_every,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
        max_length=None,
        bf16=torch.cuda.is_available(),
        activation_checkpointing=True,
    )
    with args.main_process_first():
        cache = cache_of(options)
    trainer = SparseKDSFTTrainer(
        student_of(options, cache),
        args,
        SparseLogitCollator(cache, flatten=options.flatten),
        train_dataset=rows_of(options),
        processing_class=tokenizer_of(options),
    )
    trainer.train()


def rows_of(options: argparse.Namespace) -> datasets.Dataset:
    """One row per sequence of the cache, in any order, with any other columns."""
    if options.dataset:
        return datasets.Dataset.from_parquet(options.dataset)
    rows = [{"input_ids": ids, "sequence_id": i} for i, ids in enumerate(windows().tolist())]
    return datasets.Dataset.from_list(rows)


def tokenizer_of(options: argparse.Namespace) -> PreTrainedTokenizerFast:
    """SFTTrainer wants one, also for rows that are tokenised."""
    if options.student:
        return AutoTokenizer.from_pretrained(options.student)
    from tokenizers import Tokenizer, models

    words = models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), eos_token="</s>", pad_token="<pad>"
    )


if __name__ == "__main__":
    main()
