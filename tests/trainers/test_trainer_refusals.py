"""What a Trainer cannot distil with, it says: nothing is passed over in silence."""

from __future__ import annotations

import pytest
import torch
from runs import LENGTHS, SparseKDTrainer, arguments, trainer
from tiny import student, write_cache

from sparselogits import InvalidArgumentError, VocabularyMismatchError
from sparselogits.integrations.transformers import SparseKDOptions, cache_dataset
from sparselogits.torch import SparseLogitDataset


def test_a_batch_without_targets_is_refused(tmp_path):
    run = trainer(tmp_path, student())
    with pytest.raises(InvalidArgumentError, match=r"no sparse_targets \(input_ids, labels"):
        run.compute_loss(run.model, {"input_ids": torch.zeros(1, 2).long(), "labels": None})
    with pytest.raises(InvalidArgumentError, match="NoneType"):
        run.get_batch_samples(iter([None]), 1, torch.device("cpu"))


def test_a_smaller_vocabulary_is_refused(tmp_path):
    run = trainer(tmp_path, student(vocab_size=52))
    batch = next(iter(run.get_train_dataloader()))
    batch["input_ids"] = batch["input_ids"].clamp(max=51)
    with pytest.raises(VocabularyMismatchError, match="53 ids and the student's head only 52"):
        run.compute_loss(run.model, batch)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor is 0.1"),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches"),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(tmp_path, changes, named):
    with pytest.raises(InvalidArgumentError, match=named):
        trainer(tmp_path, student(), **changes)


def test_compute_loss_func_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="compute_loss_func"):
        SparseKDTrainer(student(), arguments(tmp_path), compute_loss_func=lambda *_, **__: None)


def test_another_batch_size_or_rank_than_the_arguments_is_refused(tmp_path):
    args = arguments(tmp_path)
    cache = write_cache(tmp_path / "cache", LENGTHS)
    run = SparseKDTrainer(student(), args, train_dataset=cache_dataset(args, cache, shuffle=False))
    args.per_device_train_batch_size = 2
    with pytest.raises(InvalidArgumentError, match="is 2 and the dataset's batch_size 4"):
        run.get_train_dataloader()
    args.per_device_train_batch_size = 4
    run.train_dataset = SparseLogitDataset(cache, batch_size=4, rank=1, world_size=2)
    with pytest.raises(InvalidArgumentError, match="rank 1 of 2 and this is rank 0 of 1"):
        run.get_train_dataloader()


def test_persistent_workers_that_would_repeat_the_first_order_are_refused(tmp_path):
    run = trainer(
        tmp_path, student(), dataloader_num_workers=1, dataloader_persistent_workers=True,
        max_steps=-1, num_train_epochs=2,
    )  # fmt: skip
    run.train_dataset = cache_dataset(run.args, run.train_dataset.cache)
    with pytest.raises(InvalidArgumentError, match="persistent_workers"):
        run.train()


def test_alpha_outside_its_range_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"alpha is 1\.5"):
        SparseKDOptions(alpha=1.5)
