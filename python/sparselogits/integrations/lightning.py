"""SparseLogitDataModule: a cache as the data of a Lightning Trainer, resumable within an epoch.

Importing this needs Lightning: `pip install "sparselogits[lightning]"`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from sparselogits.torch.batch import Batch
from sparselogits.torch.dataset import SparseLogitDataset

if TYPE_CHECKING:
    import torch

    from sparselogits.reader import Cache


class SparseLogitDataModule(LightningDataModule):
    """Batches of a cache for each rank; a checkpoint holds the position in the epoch.

    The steps of a LightningModule get a `Batch` on the device.

    Args:
        cache: To train on: an open cache, or its path.
        validation: To validate on, in its own order and to its end; or None.
        batch_size: Sequences per batch and rank.
        num_workers, pin_memory: Of the `DataLoader`s.
        options: Further ones of the training `SparseLogitDataset`.

    Raises:
        InvalidArgumentError: In `setup`, as `SparseLogitDataset`.
    """

    def __init__(
        self,
        cache: Cache | str | os.PathLike[str],
        *,
        validation: Cache | str | os.PathLike[str] | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        pin_memory: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self._caches = cache, validation
        if validation is None:
            # Lightning asks for a validation_step wherever there is such a method.
            self.val_dataloader = None  # type: ignore[method-assign,assignment]
        self._batch_size = batch_size
        self._options = options
        self._loader_options: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
        }

    def setup(self, stage: str) -> None:
        """Makes the datasets for this rank."""
        trainer = self.trainer
        assert trainer is not None
        training, validation = self._caches
        place: dict[str, Any] = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        if stage == "fit":
            self.training_set = SparseLogitDataset(
                training, self._batch_size, **{**place, **self._options}
            )
        if validation is not None:
            self.validation_set = SparseLogitDataset(
                validation, self._batch_size, shuffle=False, drop_last=False, **place
            )

    def train_dataloader(self) -> SparseLogitLoader:
        """One pass an epoch, each in an order of its own."""
        trainer = self.trainer
        assert trainer is not None
        return SparseLogitLoader(
            self.training_set, lambda: trainer.current_epoch, **self._loader_options
        )

    def val_dataloader(self) -> Any:
        """The whole validation cache; the method is None where there is none."""
        return DataLoader(self.validation_set, batch_size=None, **self._loader_options)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """The batch on the device."""
        return batch.to(device, non_blocking=True)


class SparseLogitLoader(DataLoader[Batch]):
    """A loader whose state Lightning saves: the position behind the batches that were handed out.

    Args:
        dataset: For this rank.
        epoch: Called before each pass: which epoch it is.
        options: Of `DataLoader`.
    """

    def __init__(
        self, dataset: SparseLogitDataset, epoch: Callable[[], int], **options: Any
    ) -> None:
        super().__init__(dataset, batch_size=None, **options)
        self._source = dataset
        self._epoch = epoch
        self._used = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._source.set_epoch(self._epoch())
        self._used = 0
        for batch in super().__iter__():
            self._used += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The dataset's state behind the last batch."""
        return self._source.state_after(self._used)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next pass goes on there.

        Raises:
            MismatchError: The state is of another cache, seed or global batch.
        """
        self._source.load_state_dict(state)
        self._used = 0
