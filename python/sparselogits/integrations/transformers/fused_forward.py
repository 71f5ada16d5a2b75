"""A causal language model run with its output head and the loss as one: no (B, S, V) logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from sparselogits.capture.model_facts import output_head
from sparselogits.capture.modes import replaced_forward
from sparselogits.errors import InvalidArgumentError

HeadLoss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
"""(hidden (B, S, H), weight (V, H), bias (V,) or None) -> scalar loss."""


@contextmanager
def loss_in_place_of_logits(model: nn.Module, loss_of: HeadLoss) -> Iterator[None]:
    """While this lasts, the forward of `model` returns a dictionary with the key "loss".

    The loss is computed inside the forward of the head, and that inside the forward of the model:
    where DDP, FSDP or ZeRO wrap either, their hooks have gathered the weights, and the outermost
    forward returns what the gradient starts from, as they need it. A router's "aux_loss" is
    returned where the model has one.

    Args:
        model: The causal language model itself; call it, or what wraps it, inside.
        loss_of: Computes the loss.
    """
    head = output_head(model)
    original = model.forward
    losses: list[Tensor] = []

    def loss_of_hidden(hidden: Tensor) -> Tensor:
        losses.append(loss_of(hidden, head.weight, head.bias))  # type: ignore[arg-type]
        # Whatever the model does to its logits now, it does to one number that nobody reads.
        return hidden.new_zeros((1, 1, 1))

    def forward(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
        losses.clear()
        with replaced_forward(head, loss_of_hidden):
            outputs = original(*args, **kwargs)
        if len(losses) != 1:
            raise InvalidArgumentError(
                f"{type(model).__name__} called its output head {len(losses)} times; it must be "
                "once (set fused=False to compute the loss from its logits)"
            )
        result = {"loss": losses.pop()}
        aux_loss = getattr(outputs, "aux_loss", None)
        return result if aux_loss is None else {**result, "aux_loss": aux_loss}

    with replaced_forward(model, forward):
        yield
