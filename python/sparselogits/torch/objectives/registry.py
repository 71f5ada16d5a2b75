"""Objectives by name, for configurations."""

from __future__ import annotations

from typing import Any

from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.objectives.dense import FullKD, LabelSmoothing, ReverseKD
from sparselogits.torch.objectives.objective import Objective
from sparselogits.torch.objectives.sparse_objective import CrossEntropy, SampledKD
from sparselogits.torch.objectives.top_tokens import GhostToken, SmoothedResidual, TopTokens

OBJECTIVES: dict[str, type[Objective]] = {
    "cross_entropy": CrossEntropy,
    "label_smoothing": LabelSmoothing,
    "sampled_kd": SampledKD,
    "full_kd": FullKD,
    "reverse_kd": ReverseKD,
    "top_k": TopTokens,
    "top_p": TopTokens,
    "naive_fix": TopTokens,
    "ghost_token": GhostToken,
    "smoothed_residual": SmoothedResidual,
}
"""The classes that `make_objective` makes, by name."""

_NEEDED = {"top_k": "k", "top_p": "p"}
_FIXED = {"naive_fix": {"rest": "label"}}


def make_objective(name: str, **options: Any) -> Objective:
    """The objective of a configuration, such as `make_objective("ghost_token", k=12, alpha=0.1)`.

    Args:
        name: A key of `OBJECTIVES`.
        options: Attributes of its class.

    Raises:
        InvalidArgumentError: There is no such name or option, or its value is out of range.
    """
    if name not in OBJECTIVES:
        raise InvalidArgumentError(f"objective is {name!r}; it must be one of {list(OBJECTIVES)}")
    needed = _NEEDED.get(name)
    if needed is not None and options.get(needed) is None:
        raise InvalidArgumentError(f"objective {name!r} needs the option {needed}")
    fixed = _FIXED.get(name, {})
    for option in fixed.keys() & options.keys():
        raise InvalidArgumentError(
            f"{option} is {options[option]!r}; for {name!r} it is always {fixed[option]!r}"
        )
    try:
        return OBJECTIVES[name](**options, **fixed)
    except TypeError as error:
        raise InvalidArgumentError(f"objective {name!r}: {error}") from None
