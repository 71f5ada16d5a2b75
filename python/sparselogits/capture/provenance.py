"""The facts that a captured cache tells about its teacher and its making."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata as packages
from typing import TYPE_CHECKING

from sparselogits.capture import model_facts
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

# What only the user, or the source of the windows, can know better than capture; every other key
# is a fact of the run.
_USER_KEYS = ("teacher", "bos_rule", "window_packing")
_SOURCE_KEYS = ("bos_rule", "window_packing", "document_mask", "position_ids", "targets_mask")

#: metadata["document_mask"] of windows that are one document each.
NO_DOCUMENT_MASK = "none"


def capture_metadata(
    model: nn.Module,
    seed: int,
    masked: bool,
    user: Mapping[str, str] | None,
    *,
    offset: float = 0.0,
    source: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The metadata of a capture, with the user's own keys added.

    Args:
        masked: Whether a targets_mask was given.
        offset: Of systematic draws; recorded where it is not 0.
        source: What the source of windows says of itself, its `description`.

    Raises:
        InvalidArgumentError: The user's metadata or the source's is not str to str, or contradicts
            a fact that is not theirs.
    """
    facts = {
        "teacher": model_facts.teacher_name(model),
        "teacher_class": type(model).__name__,
        "teacher_dtype": model_facts.teacher_dtype(model),
        "teacher_weights_fingerprint": model_facts.weights_fingerprint(model),
        **run_facts(seed, masked, offset),
    }
    return with_given_facts(facts, source, user)


def run_facts(seed: int, masked: bool, offset: float) -> dict[str, str]:
    """The facts of a capture that do not depend on what the teacher runs in.

    Args:
        masked: Whether a targets_mask was given.
        offset: Of systematic draws; recorded where it is not 0.
    """
    facts = {
        "head_dtype": "float32",
        "seed": str(seed),
        "targets_mask": "given" if masked else "none",
        "bos_rule": "windows as given: capture adds no token",
        "window_packing": "one window a sequence",
        "document_mask": NO_DOCUMENT_MASK,
        "position_ids": "from 0 in each window",
        "sparselogits_version": _version("sparselogits"),
        "torch_version": _version("torch"),
        "transformers_version": _version("transformers"),
    }
    if offset != 0:
        facts["systematic_offset"] = repr(float(offset))
    return facts


def with_given_facts(
    facts: Mapping[str, str], source: Mapping[str, str] | None, user: Mapping[str, str] | None
) -> dict[str, str]:
    """The facts of a run with those of the source of windows and of the user added.

    Raises:
        InvalidArgumentError: Given ones are not str to str, or contradict a fact that is not
            theirs.
    """
    facts = dict(facts)
    for given, replaces in ((source, _SOURCE_KEYS), (user, _USER_KEYS)):
        for key, value in (given or {}).items():
            if not isinstance(key, str) or not isinstance(value, str):
                raise InvalidArgumentError(f"metadata must map str to str, got {key!r}: {value!r}")
            if key in facts and key not in replaces and value != facts[key]:
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
