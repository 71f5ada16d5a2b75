"""What a Trainer must be set to for distillation, and a dataset that fits its arguments."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.dataset import SparseLogitDataset

if TYPE_CHECKING:
    from torch import nn
    from transformers import Trainer, TrainingArguments

    from sparselogits.reader import Cache


def cache_dataset(
    args: TrainingArguments,
    cache: Cache | str | os.PathLike[str],
    *,
    evaluation: bool = False,
    **options: Any,
) -> SparseLogitDataset:
    """The dataset of whole batches that fits a Trainer's arguments and this process.

    Args:
        args: Of the Trainer: batch size, seed, rank and world size are taken from there.
        cache: An open cache, or its path.
        evaluation: With the batch size for evaluation, in the order of the cache, and to its end.
        options: Further ones of `SparseLogitDataset`.

    Raises:
        InvalidArgumentError: As `SparseLogitDataset`.
    """
    if evaluation:
        options = {"shuffle": False, "drop_last": False, **options}
    seed = args.seed if args.data_seed is None else args.data_seed
    return SparseLogitDataset(
        cache,
        batch_size=args.eval_batch_size if evaluation else args.train_batch_size,
        rank=args.process_index,
        world_size=args.world_size,
        **{"seed": seed, **options},
    )


def check_trainer(trainer: Trainer) -> None:
    """Refuses settings that distillation would silently pass over, or that drop its columns.

    Raises:
        InvalidArgumentError: Names the setting.
    """
    args = trainer.args
    if args.remove_unused_columns:
        raise InvalidArgumentError(
            "remove_unused_columns is True: it takes away the columns that name a row's sequence; "
            "set it to False"
        )
    if args.label_smoothing_factor != 0:
        raise InvalidArgumentError(
            f"label_smoothing_factor is {args.label_smoothing_factor}: a teacher's distribution is "
            "not smoothed; set it to 0"
        )
    if trainer.compute_loss_func is not None:
        raise InvalidArgumentError("compute_loss_func would not be called; leave it out")
    if args.n_gpu > 1:
        raise InvalidArgumentError(
            f"n_gpu is {args.n_gpu}: DataParallel would cut batches along a dimension that targets "
            "do not have; start one process per GPU with torchrun or accelerate launch"
        )
    if trainer.accelerator.dataloader_config.dispatch_batches:
        raise InvalidArgumentError(
            "dispatch_batches is True: batches of sparse targets cannot be cut for other "
            "processes; leave it out, and each process reads its own"
        )
    for name in ("tp", "cp", "sp"):
        size = getattr(trainer, f"get_{name}_size")()
        if size > 1:
            raise InvalidArgumentError(
                f"{name}_size is {size}: the sparse losses of a Trainer need whole rows and a "
                "whole head; use data parallelism, DDP or FSDP"
            )


def check_wrapped(trainer: Trainer, model: nn.Module) -> None:
    """Refuses to train a model that nothing keeps equal across processes.

    accelerate 1.15 takes a model that `evaluate()` was called with before `train()` for prepared,
    and leaves DDP out: each process then trains on its own.

    Raises:
        InvalidArgumentError: There are several processes and the model is bare.
    """
    accelerator = trainer.accelerator
    replicated = accelerator.distributed_type.name.startswith("MULTI_")
    if replicated and accelerator.unwrap_model(model, keep_torch_compile=False) is model:
        raise InvalidArgumentError(
            f"{type(model).__name__} is not wrapped in DistributedDataParallel, though there are "
            f"{accelerator.num_processes} processes: gradients would not be averaged. Was "
            "evaluate() called before train()? Use eval_on_start=True instead"
        )
