"""Student: the loss of a causal language model on a batch, by its fused head where it has one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sparselogits.capture.model_facts import output_head, text_config
from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.transformers.fused_forward import loss_in_place_of_logits
from sparselogits.integrations.transformers.logit_map import LogitMap, find_logit_map
from sparselogits.torch.fused import fused_linear_sparse_kd_loss
from sparselogits.torch.losses import sparse_kd_loss
from sparselogits.torch.targets import SparseTargets

_logger = logging.getLogger(__name__)
_PROBE_TOKENS = 2


@dataclass(frozen=True)
class SparseKDOptions:
    """How a trainer distils.

    Attributes:
        temperature: Divides the student's logits.
        scale_by_temperature_squared: Multiply the loss by its square.
        alpha: The share of the cross-entropy against the next token, from 0 to 1.
        fused: Compute the loss from hidden states and the head's weight, so that (B, S, V) logits
            never exist. None: where the head is a plain linear layer, with at most a scale and a
            soft-cap behind it, and `torch_compile` is off. True refuses other models; False
            computes logits.
    """

    temperature: float = 1.0
    scale_by_temperature_squared: bool = False
    alpha: float = 0.0
    fused: bool | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise InvalidArgumentError(f"alpha is {self.alpha}; it must be from 0 to 1")


@dataclass(frozen=True)
class StudentLoss:
    """A loss, with the model's outputs where they were asked for.

    Attributes:
        distillation: Scalar, the mean over rows or a sum divided by `num_items`.
        auxiliary: A router's load-balancing loss times its coefficient, a mean of this batch; None
            for models without.
        outputs: What the model returned, if logits were wanted.
    """

    distillation: Tensor
    auxiliary: Tensor | None
    outputs: Any


class Student:
    """A model as a trainer calls it.

    Args:
        options: What loss.
    """

    def __init__(self, options: SparseKDOptions) -> None:
        self.options = options
        self._map: LogitMap | None = None
        self._looked_at: nn.Module | None = None

    def loss(
        self,
        model: nn.Module,
        wrapped: nn.Module,
        inputs: Mapping[str, Any],
        targets: SparseTargets,
        *,
        labels: Tensor | None,
        mask: Tensor | None = None,
        num_items: Tensor | int | None = None,
        with_outputs: bool = False,
    ) -> StudentLoss:
        """The loss of one batch.

        Args:
            model: The causal language model itself.
            wrapped: What is called: the model, or DDP or the like around it.
            inputs: Arguments of the forward, without labels and targets.
            targets: On the model's device.
            labels: (B, S) next tokens, needed for `alpha`.
            mask: (B, S) bool, False leaves a row out.
            num_items: What a sum over rows is divided by; None for the mean of this batch.
            with_outputs: Return the outputs, with logits.

        Raises:
            InvalidArgumentError: `fused` is True and the model's head is not of that kind, or
                `alpha` has no labels.
            VocabularyMismatchError: The head is smaller than the cache's vocabulary.
        """
        keywords: dict[str, Any] = {
            "mask": mask,
            "temperature": self.options.temperature,
            "scale_by_temperature_squared": self.options.scale_by_temperature_squared,
            "num_items": num_items,
        }
        if self.options.alpha > 0:
            if labels is None:
                raise InvalidArgumentError(
                    f"alpha is {self.options.alpha}, but the batch has no shift_labels"
                )
            keywords |= {"labels": labels, "alpha": self.options.alpha}
        arguments = dict(inputs)
        if hasattr(text_config(model), "use_cache"):
            arguments["use_cache"] = False
        found = None if with_outputs else self._fused_map(model, wrapped, arguments)
        if found is None:
            outputs = wrapped(**arguments)
            loss = sparse_kd_loss(outputs.logits, targets, **keywords)
            return StudentLoss(loss, _auxiliary(model, outputs), outputs)
        if found.softcap is not None:
            keywords["softcap"] = found.softcap

        def head_loss(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            if found.scale != 1.0:
                hidden = hidden * found.scale
                bias = bias if bias is None else bias * found.scale
            return fused_linear_sparse_kd_loss(hidden, weight, targets, bias=bias, **keywords)

        with loss_in_place_of_logits(model, head_loss):
            outputs = wrapped(**arguments)
        return StudentLoss(outputs["loss"], _auxiliary(model, outputs), None)

    def _fused_map(
        self, model: nn.Module, wrapped: nn.Module, arguments: Mapping[str, Any]
    ) -> LogitMap | None:
        """What follows the model's plain head, or None for the path over logits."""
        if self.options.fused is False:
            return None
        if self._looked_at is not model:
            ids = arguments["input_ids"][:1, :_PROBE_TOKENS]
            options = {"use_cache": False} if "use_cache" in arguments else {}
            # A compiled graph would not see another forward of the head, or compile it every step.
            compiled = hasattr(wrapped, "_orig_mod")
            self._map = None if compiled else find_logit_map(model, wrapped, ids, options)
            self._looked_at = model
            if self._map is None:
                reason = (
                    f"{type(model).__name__} is compiled as a whole"
                    if compiled
                    else f"the head of {type(model).__name__} ({type(output_head(model)).__name__})"
                    " is not a plain linear layer followed by at most a scale and a soft-cap"
                )
                if self.options.fused:
                    raise InvalidArgumentError(f"fused is True, but {reason}")
                _logger.warning("%s: the loss is computed from (B, S, V) logits", reason)
        return self._map


def _auxiliary(model: nn.Module, outputs: Any) -> Tensor | None:
    """A mixture of experts returns it where its config asks for router logits."""
    loss = outputs.get("aux_loss") if hasattr(outputs, "get") else None
    coefficient = getattr(text_config(model), "router_aux_loss_coef", None)
    return loss * coefficient if loss is not None and coefficient else None
