"""Tensors of which this process has a part only."""

from __future__ import annotations

from torch import Tensor

from sparselogits.errors import InvalidArgumentError


def refuse_sharded(name: str, tensor: Tensor) -> None:
    """Raises InvalidArgumentError for a DTensor, as FSDP2's parameters are outside its forward."""
    # Not isinstance: most processes have not imported the class.
    if hasattr(tensor, "full_tensor"):
        raise InvalidArgumentError(
            f"{name} is a sharded DTensor; compute the loss in the forward of the FSDP module that "
            "has it, or pass full_tensor(grad_placements=[Partial('avg')]) "
            "(docs/distributed_training.md)"
        )
