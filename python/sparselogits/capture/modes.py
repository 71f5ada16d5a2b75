"""States that a model is put into for a while and always taken out of again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sparselogits.capture.model_facts import output_head


@contextmanager
def float32_head(model: nn.Module) -> Iterator[None]:
    """Lets the output head compute in float32 for a while; its weights stay as they are.

    The head of a bf16 or fp16 model gets a float32 copy beside it, so that tied embeddings keep
    their dtype. Autocast is switched off inside the head.
    """
    head = output_head(model)
    wide = head
    if any(p.dtype != torch.float32 for p in head.parameters()):
        wide = copy.deepcopy(head).float()
    compute = wide.forward
    device_type = next(head.parameters()).device.type

    def in_float32(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device_type, enabled=False):
            if type(wide) is nn.Linear:  # not through its forward: that may be a dispatch hook
                return functional.linear(
                    hidden.to(wide.weight.device).float(), wide.weight, wide.bias
                )
            return compute(hidden.float(), *args, **kwargs)

    with replaced_forward(head, in_float32):
        yield


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model.eval()`, with the training flag of every submodule restored afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Shadows `module.forward` on the instance, and puts back what was there."""
    had_own = "forward" in module.__dict__
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if had_own:
            module.forward = own  # type: ignore[assignment]
        else:
            del module.__dict__["forward"]
