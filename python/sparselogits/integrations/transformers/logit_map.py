"""What a model does to its logits after the head: found by trying, not by the model's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from sparselogits.capture.model_facts import output_head, text_config
from sparselogits.capture.modes import evaluation_mode, replaced_forward

_PROBE_LIMIT = 40.0  # large enough for every soft-cap in use to bend them
_TOLERANCE = 1e-3
_SATURATED = 0.9  # of the cap: beyond, rounding hides the slope


@dataclass(frozen=True)
class LogitMap:
    """logits = softcap · tanh(scale · z / softcap), or scale · z without a soft-cap.

    Gemma 2 and 3 have a soft-cap, Cohere and Granite a scale, most models neither.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """The logits that the model makes of its head's output."""
        scaled = z * self.scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


def find_logit_map(
    model: nn.Module, wrapped: nn.Module, input_ids: Tensor, options: dict[str, Any]
) -> LogitMap | None:
    """Lets the head of a causal language model give known numbers and looks at what comes out.

    One forward pass over a few tokens, in evaluation mode and without a gradient: no dropout is
    drawn. The result is one that reproduces every number of the probe; None where there is none, as
    the model has a head of another kind or does more to its logits.

    Args:
        model: The causal language model itself.
        wrapped: What is called: the model, or DDP or the like around it.
        input_ids: (1, n) int64 with n ≥ 1, on the model's device.
        options: Further arguments of its forward.
    """
    head = output_head(model)
    if not has_plain_head(head):
        return None
    vocab_size = head.out_features
    probe = torch.linspace(-_PROBE_LIMIT, _PROBE_LIMIT, vocab_size, device=input_ids.device)
    calls: list[tuple[torch.Size, torch.Size]] = []

    def known_numbers(hidden: Tensor) -> Tensor:
        # Inside the head's forward, where its weight is whole however it is sharded elsewhere.
        calls.append((hidden.shape, head.weight.shape))
        return probe.expand(*hidden.shape[:-1], vocab_size).clone()

    with evaluation_mode(model), torch.no_grad(), replaced_forward(head, known_numbers):
        logits = wrapped(input_ids=input_ids, **options).logits
    expected = ((*input_ids.shape, head.in_features), (vocab_size, head.in_features))
    if calls != [expected] or logits.shape != (*input_ids.shape, vocab_size):
        return None
    return _fit(probe, logits, getattr(text_config(model), "final_logit_softcapping", None))


def has_plain_head(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the head is a linear layer with floating-point weights and nothing around it."""
    return (
        isinstance(head, nn.Linear)
        and "forward" not in vars(head)  # a dispatch or offload hook sits there
        and head.weight.is_floating_point()
    )


def _fit(z: Tensor, logits: Tensor, softcap: float | None) -> LogitMap | None:
    rows = logits.float().reshape(-1, len(z))
    for candidate in (_scaled(z, rows[0]), _capped(z, rows[0], softcap)):
        if candidate is None:
            continue
        expected = candidate(z).expand_as(rows)
        if torch.allclose(rows, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            return candidate
    return None


def _scaled(z: Tensor, logits: Tensor) -> LogitMap:
    return LogitMap(_rounded(float(logits[-1] / z[-1])))


def _capped(z: Tensor, logits: Tensor, softcap: float | None) -> LogitMap | None:
    if not softcap:
        return None
    bent = logits / softcap
    usable = (z.abs() > 1) & (bent.abs() < _SATURATED)
    if not bool(usable.any()):
        return None
    slopes = torch.atanh(bent[usable]) * softcap / z[usable]
    return LogitMap(_rounded(float(slopes.median())), float(softcap))


def _rounded(scale: float) -> float:
    """Six digits: the probe's own rounding is in the seventh."""
    return float(f"{scale:.6g}")
