"""Lightning trains from a cache, and goes on in the middle of an epoch as if nothing had been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from runs import dense_loss
from tiny import student, write_cache

from sparselogits import MismatchError
from sparselogits.integrations.lightning import SparseLogitDataModule
from sparselogits.torch import Batch, fused_linear_sparse_kd_loss

LENGTHS = [5, 9, 7, 12] * 3 + [6]  # three batches of four, and one sequence more

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning 2.6 on torch 2.13
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
]


class Module(lightning.LightningModule):
    """The student; it remembers its losses."""

    def __init__(self) -> None:
        super().__init__()
        self.student = student(attention_dropout=0.0)
        self.losses: list[tuple[str, float]] = []

    def loss(self, batch: Batch) -> torch.Tensor:
        hidden = self.student.model(batch.input_ids).last_hidden_state
        return fused_linear_sparse_kd_loss(hidden, self.student.lm_head.weight, batch.targets)

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.losses.append(("train", loss.item()))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.losses.append(("validate", self.loss(batch).item()))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def fit(path: Path, resume: Path | None = None, seed: int = 0, **changes: Any) -> Module:
    """Three epochs of three batches, with a checkpoint after each batch."""
    cache = path / "cache"
    if not cache.exists():
        write_cache(cache, LENGTHS)
    options = {"num_workers": 0, **changes}
    module = Module()
    trainer = lightning.Trainer(
        default_root_dir=path,
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[ModelCheckpoint(path / "saved", "{step}", save_top_k=-1, every_n_train_steps=1)],
    )
    data = SparseLogitDataModule(cache, validation=cache, batch_size=4, seed=seed, **options)
    trainer.fit(module, data, ckpt_path=resume, weights_only=False)
    return module


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_resumes_with_the_same_losses(tmp_path, workers):
    whole = [loss for kind, loss in fit(tmp_path).losses if kind == "train"]
    assert len(whole) == 9
    assert len(set(whole)) == 9
    for step in (2, 4, 8):
        resumed = fit(tmp_path, tmp_path / f"saved/step={step}.ckpt", num_workers=workers)
        found = [loss for kind, loss in resumed.losses if kind == "train"]
        assert found == pytest.approx(whole[step:], abs=1e-6)


def test_each_epoch_has_an_order_of_its_own_and_validation_the_whole_cache(tmp_path):
    module = fit(tmp_path)
    kinds = [kind for kind, _ in module.losses]
    assert kinds == (["train"] * 3 + ["validate"] * 4) * 3
    data = module.trainer.datamodule
    assert data.training_set.epoch == 2
    losses = [module.loss(batch).item() for batch in data.val_dataloader()]
    parts = [range(4), range(4, 8), range(8, 12), range(12, 13)]
    expected = [dense_loss(module.student, data.training_set.cache, p).item() for p in parts]
    assert losses == pytest.approx(expected, abs=1e-4)


def test_a_checkpoint_of_another_order_is_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(MismatchError, match="seed 0 and this dataset has 1"):
        fit(tmp_path, tmp_path / "saved/step=2.ckpt", seed=1)
