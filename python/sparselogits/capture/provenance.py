"""The facts that a captured cache tells about its teacher and its making."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata as packages
from typing import TYPE_CHECKING

from sparselogits.capture import model_facts
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

# What only the user can know better than capture; every other key is a fact of the run.
_OVERRIDABLE = ("teacher", "bos_rule", "window_packing")


def capture_metadata(
    model: nn.Module, seed: int, masked: bool, user: Mapping[str, str] | None
) -> dict[str, str]:
    """The metadata of a capture, with the user's own keys added.

    Raises:
        InvalidArgumentError: The user's metadata is not str to str, or contradicts a fact.
    """
    facts = {
        "teacher": model_facts.teacher_name(model),
        "teacher_class": type(model).__name__,
        "teacher_dtype": model_facts.teacher_dtype(model),
        "teacher_weights_fingerprint": model_facts.weights_fingerprint(model),
        "head_dtype": "float32",
        "seed": str(seed),
        "targets_mask": "given" if masked else "none",
        "bos_rule": "windows as given: capture adds no token",
        "window_packing": "one window a sequence, positions from 0, no document mask",
        "sparselogits_version": _version("sparselogits"),
        "torch_version": _version("torch"),
        "transformers_version": _version("transformers"),
    }
    for key, value in (user or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"metadata must map str to str, got {key!r}: {value!r}")
        if key in facts and key not in _OVERRIDABLE and value != facts[key]:
            raise InvalidArgumentError(
                f"metadata[{key!r}] is {value!r}, but this capture has {facts[key]!r}"
            )
        facts[key] = value
    return facts


def _version(package: str) -> str:
    try:
        return packages.version(package)
    except packages.PackageNotFoundError:
        return "unknown"
