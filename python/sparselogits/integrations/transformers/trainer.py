"""SparseKDTrainerMixin: a Hugging Face Trainer that distils from a cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput

from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.transformers.arguments import check_trainer, check_wrapped
from sparselogits.integrations.transformers.evaluation import RowMean, rows_once
from sparselogits.integrations.transformers.loader import CacheLoader
from sparselogits.integrations.transformers.position import DatasetPosition
from sparselogits.integrations.transformers.student import SparseKDOptions, Student
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.dataset import SparseLogitDataset
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.trainer_inputs import TARGETS_KEY, counted_rows

if TYPE_CHECKING:
    from transformers import Trainer as _Base  # checked as what it is mixed into
else:
    _Base = object


class SparseKDTrainerMixin(_Base):
    """Put before a Trainer class: `class MyTrainer(SparseKDTrainerMixin, Trainer)`.

    Two kinds of datasets:

    * A `SparseLogitDataset`: whole batches, made for this rank (see `cache_dataset`). Their order
      comes from the dataset; the Trainer's samplers and accelerate's sharding are not used. A
      checkpoint holds its position.
    * Any other dataset whose rows name a sequence of a cache, with a `SparseLogitCollator` as
      `data_collator`; or a `SparseLogitMapDataset`, with
      `data_collator=lambda rows: trainer_inputs(dataset.collate(rows))`.

    The loss is the mean over all rows with a target of an update, whatever the number of
    accumulated batches and of processes. `eval_loss` is the mean over all rows of the evaluation.

    Args:
        kd: How to distil; the other arguments are those of the Trainer.

    Raises:
        InvalidArgumentError: A setting of the Trainer cannot be combined with distillation.
    """

    def __init__(self, *args: Any, kd: SparseKDOptions | None = None, **kwargs: Any) -> None:
        self._student = Student(kd or SparseKDOptions())
        super().__init__(*args, **kwargs)
        check_trainer(self)
        # Targets cannot be cut along a batch dimension: each process has to read its own rows.
        self.accelerator.dataloader_config.dispatch_batches = False
        # compute_loss divides by the rows of the whole update.
        self.loss_is_scaled_for_ga = self.model_accepts_loss_kwargs = True
        self._train_loader: CacheLoader | None = None
        self._evaluated = RowMean()
        self._position = DatasetPosition()
        self.add_callback(self._position)

    # ---- Data ----

    def get_train_dataloader(self) -> Any:
        """The loader of `train_dataset`."""
        if not isinstance(self.train_dataset, SparseLogitDataset):
            return super().get_train_dataloader()
        size = self.train_dataset.schedule.batch_size
        if size != self.args.train_batch_size:
            raise InvalidArgumentError(
                f"per_device_train_batch_size is {self.args.train_batch_size} and the dataset's "
                f"batch_size {size}"
            )
        self._train_loader = self._cache_loader(self.train_dataset)
        return self._train_loader

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of an evaluation dataset: its name, the dataset itself, or None."""
        known: Any = self.eval_dataset
        chosen = known if eval_dataset is None else eval_dataset
        if isinstance(chosen, str):
            chosen = known[chosen]
        if isinstance(chosen, SparseLogitDataset):
            return self._cache_loader(chosen, fill_steps=True)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """The loader of a dataset for `predict`."""
        if isinstance(test_dataset, SparseLogitDataset):
            return self._cache_loader(test_dataset, fill_steps=True)
        return super().get_test_dataloader(test_dataset)

    def _cache_loader(self, dataset: SparseLogitDataset, fill_steps: bool = False) -> CacheLoader:
        args = self.args
        return CacheLoader(
            dataset,
            args.process_index,
            args.world_size,
            fill_steps=fill_steps,
            num_workers=args.dataloader_num_workers,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | None]:
        """The batches of one update, and the rows of them, on all processes if so configured."""
        batches = []
        for _ in range(num_batches):
            try:
                batches.append(next(epoch_iterator))
            except StopIteration:
                break
        if self._train_loader is not None:
            self._position.position = self._train_loader.use(len(batches))
        if not batches:
            return batches, None
        rows = sum(self._count(batch) for batch in batches)
        assert isinstance(rows, Tensor)
        rows = rows.to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            rows = self.accelerator.gather(rows).sum()
        # An update without any target has a loss of zero, not 0 / 0.
        return batches, rows.clamp(min=1)

    def _count(self, batch: Any, mask: Tensor | None = None) -> Tensor:
        targets, labels = _targets_of(batch), batch.get("shift_labels")
        if labels is None and self._student.options.alpha > 0:
            raise InvalidArgumentError("alpha needs shift_labels, which the batch has not")
        return counted_rows(targets, labels if self._student.options.alpha > 0 else None, mask)

    # ---- Loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of one batch.

        Args:
            model: The student, as the Trainer has wrapped it.
            inputs: As `sparselogits.torch.trainer_inputs` describes; other entries go to the model.
            return_outputs: Return the model's outputs as well. Its logits are computed for that.
            num_items_in_batch: Rows of the update, from `get_batch_samples`; None divides by
                those of this batch.

        Returns:
            A scalar in nats, or (scalar, outputs).

        Raises:
            InvalidArgumentError: The batch has no targets, or the model's head is refused.
            VocabularyMismatchError: The student's head is smaller than the cache's vocabulary.
        """
        return self._loss(model, inputs, return_outputs, num_items_in_batch, None)

    def _loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool,
        num_items: Tensor | int | None,
        mask: Tensor | None,
    ) -> Any:
        if torch.is_grad_enabled():
            check_wrapped(self, model)
        arguments = dict(inputs)
        targets = _targets_of(arguments)
        del arguments[TARGETS_KEY]
        labels = arguments.pop("shift_labels", None)
        arguments.pop("labels", None)
        ids = arguments["input_ids"]
        result = self._student.loss(
            self.accelerator.unwrap_model(model, keep_torch_compile=False),
            model,
            arguments,
            targets.to(ids.device, non_blocking=True),
            labels=labels,
            mask=mask if mask is None else mask.to(ids.device),
            num_items=num_items,
            with_outputs=return_outputs,
        )
        loss = result.distillation
        if num_items is not None and self.args.average_tokens_across_devices:
            # Each process has a part of the sum, and the processes' gradients are averaged.
            loss = loss * self.accelerator.num_processes
        if result.auxiliary is not None:
            batches = 1 if num_items is None else self.current_gradient_accumulation_steps
            loss = loss + result.auxiliary / batches
        return (loss, result.outputs) if return_outputs else loss

    # ---- Evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """The loss of a batch, its logits and its labels; only the loss where that is enough.

        Labels are not shifted, as metrics written for Hugging Face models expect.
        """
        inputs = self._prepare_inputs(inputs)
        mask = rows_once(self.accelerator, inputs["input_ids"].shape)
        with torch.no_grad(), self.compute_loss_context_manager():
            result = self._loss(model, inputs, not prediction_loss_only, None, mask)
        loss, outputs = (result, None) if prediction_loss_only else result
        loss = loss.detach()
        self._evaluated.add(loss, self._count(inputs, mask))
        if outputs is None:
            return loss, None, None
        dropped = {*(ignore_keys or ()), "loss", "past_key_values", "aux_loss", "router_logits"}
        logits = tuple(value.detach() for key, value in outputs.items() if key not in dropped)
        return loss, logits[0] if len(logits) == 1 else logits, _labels_of(inputs)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """As the Trainer's, but its loss is the mean over rows and not over batches."""
        self._evaluated = RowMean()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        assert output.metrics is not None
        output.metrics[f"{metric_key_prefix}_loss"] = self._evaluated.value(self.accelerator)
        return output


def _targets_of(batch: Any) -> SparseTargets:
    targets = batch.get(TARGETS_KEY) if hasattr(batch, "get") else None
    if not isinstance(targets, SparseTargets):
        found = ", ".join(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise InvalidArgumentError(
            f"the batch has no {TARGETS_KEY} ({found}): use a SparseLogitDataset, or a "
            "SparseLogitCollator as data_collator"
        )
    return targets


def _labels_of(inputs: dict[str, Any]) -> Tensor:
    labels = inputs.get("labels")
    if labels is not None:
        return labels  # type: ignore[no-any-return]
    following = inputs["shift_labels"]
    return torch.cat([torch.full_like(following[:, :1], IGNORED_LABEL), following[:, :-1]], dim=1)
