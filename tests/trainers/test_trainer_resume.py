"""A run from a checkpoint repeats the losses of a run that was never interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import SparseKDTrainer, arguments, losses_of
from tiny import rows_of, student, write_cache

from sparselogits import MismatchError
from sparselogits.integrations.transformers import SparseLogitCollator, cache_dataset

LENGTHS = [5, 9, 7, 12] * 5  # five batches of four: two updates and a half


def run_to(path: Path, source: str, resume: Path | None = None, **changes: Any) -> SparseKDTrainer:
    """Three epochs of shuffled batches through a student with dropout, with checkpoints."""
    cache = write_cache(path / "cache", LENGTHS) if resume is None else (path / "cache").as_posix()
    args = arguments(
        path / "out",
        **{
            "max_steps": -1,
            "num_train_epochs": 3,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.1,
            "optim": "adamw_torch",
            "save_strategy": "steps",
            "save_steps": 1,
            **changes,
        },
    )
    data: Any = cache_dataset(args, cache)
    if source == "rows":
        data = rows_of(data.cache)
    run = SparseKDTrainer(
        student(attention_dropout=0.2),
        args,
        train_dataset=data,
        data_collator=SparseLogitCollator(cache_dataset(args, cache).cache),
    )
    run.train(resume_from_checkpoint=None if resume is None else str(resume))
    return run


@pytest.mark.parametrize("source", ["cache", "rows"])
def test_a_checkpoint_resumes_with_the_same_losses(tmp_path, source):
    whole = losses_of(run_to(tmp_path, source))
    assert len(whole) == 9
    for step in (2, 3, 7):  # within an epoch, at its end, in the last one
        resumed = run_to(tmp_path, source, tmp_path / f"out/checkpoint-{step}")
        assert losses_of(resumed) == whole  # the log goes on from that of the checkpoint


def test_workers_resume_where_the_batches_of_the_loader_ended(tmp_path):
    settings = {"gradient_accumulation_steps": 1, "num_train_epochs": 1}
    whole = losses_of(run_to(tmp_path, "cache", **settings))
    for workers in (1, 2):  # three batches are no multiple of two workers
        settings |= {"dataloader_num_workers": workers, "save_strategy": "no"}
        resumed = run_to(tmp_path, "cache", tmp_path / "out/checkpoint-3", **settings)
        assert losses_of(resumed) == whole


def test_skipped_batches_are_not_decoded(tmp_path, monkeypatch):
    run_to(tmp_path, "cache")
    read = []
    original = SparseKDTrainer.training_step
    monkeypatch.setattr(
        SparseKDTrainer,
        "training_step",
        lambda self, *a, **k: (
            read.append(self.train_dataset.state_dict()["consumed"]) or original(self, *a, **k)
        ),
    )
    run = run_to(tmp_path, "cache", tmp_path / "out/checkpoint-8", save_strategy="no")
    assert run.state.global_step == 9
    assert read == [20]  # the fifth batch of the last epoch, and no other


def test_the_position_is_in_the_checkpoint(tmp_path):
    run_to(tmp_path, "cache")
    state = json.loads((tmp_path / "out/checkpoint-4/trainer_state.json").read_text())
    position = state["stateful_callbacks"]["DatasetPosition"]["attributes"]["position"]
    assert (position["epoch"], position["consumed"]) == (1, 8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data_seed": 5}, "seed 42 and this dataset has 5"),
        ({"per_device_train_batch_size": 5}, "global_batch 4 and this dataset has 5"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps must be"),
    ],
)
@pytest.mark.filterwarnings("ignore:Warning. The following arguments do not match")
def test_another_order_than_the_checkpoints_is_refused(tmp_path, changes, named):
    run_to(tmp_path, "cache")
    with pytest.raises(MismatchError, match=named):
        run_to(tmp_path, "cache", tmp_path / "out/checkpoint-2", **changes)


def test_another_cache_than_the_checkpoints_is_refused(tmp_path):
    run_to(tmp_path, "cache")
    shutil.rmtree(tmp_path / "cache")
    write_cache(tmp_path / "cache", [*LENGTHS[:-1], 11])
    with pytest.raises(MismatchError, match="saved with cache"):
        run_to(tmp_path, "cache", tmp_path / "out/checkpoint-2")


def test_a_checkpoint_of_a_run_over_rows_is_refused_by_a_dataset_of_batches(tmp_path):
    run_to(tmp_path, "rows")
    with pytest.raises(MismatchError, match="without a dataset of whole batches"):
        run_to(tmp_path, "cache", tmp_path / "out/checkpoint-2")


def test_train_begins_anew_without_a_checkpoint(tmp_path):
    run = run_to(tmp_path, "cache", num_train_epochs=1)
    first = losses_of(run)
    run.model.load_state_dict(student(attention_dropout=0.2).state_dict())
    run.args.save_strategy = "no"
    run.optimizer = run.lr_scheduler = None
    run.train()
    assert losses_of(run)[0] == pytest.approx(first[0], abs=0.1)
    assert run.state.global_step == 3


def test_ignored_skip_begins_the_epoch_again(tmp_path):
    whole = losses_of(run_to(tmp_path, "cache"))
    resumed = run_to(tmp_path, "cache", tmp_path / "out/checkpoint-4", ignore_data_skip=True)
    assert losses_of(resumed)[:4] == whole[:4]
    assert losses_of(resumed)[4:] != whole[4:]
