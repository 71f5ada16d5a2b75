"""What a capture will record of itself, known before its first window."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselogits.codec_model import CodecModel
from sparselogits.config import DEFAULT_CODEC
from sparselogits.distributed.unit_plan import UnitPlan
from sparselogits.distributed.window_parts import WindowParts
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

_NOT_OPTIONS = ("resume", "path", "windows")


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `sparselogits.capture` that all units share, with a model that was loaded.

    Raises:
        InvalidArgumentError: One of them is the workers' own business.
        FormatError, CacheIOError: `codec_model` names a file that is no model.
    """
    for name in _NOT_OPTIONS:
        if name in options:
            raise InvalidArgumentError(
                f"{name} is not an option of a distributed capture: every worker goes on with what "
                "others have left"
            )
    checked = dict(options)
    model = checked.get("codec_model")
    if model is not None and not isinstance(model, CodecModel):
        checked["codec_model"] = CodecModel.load(model)
    return checked


def unit_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one unit: it is coded only if there is a model that all units share."""
    codec = options.get("codec", DEFAULT_CODEC)
    if codec == "compact" and options.get("codec_model") is None:
        codec = "packed"
    return {**options, "codec": codec}


def make_plan(
    model: nn.Module, parts: WindowParts, unit_windows: int, options: Mapping[str, Any]
) -> UnitPlan:
    """The plan of a worker. What its units will record is what a capture of no windows records.

    Args:
        model: The teacher.
        parts: All windows.
        unit_windows: Windows a unit.
        options: From `check_options`.

    Raises:
        InvalidArgumentError, VocabularyMismatchError: As `sparselogits.capture`.
    """
    from sparselogits.capture.run import capture

    with tempfile.TemporaryDirectory(prefix="sparselogits-") as scratch:
        arguments = {**unit_options(options), **parts.arguments(range(0)), "progress": False}
        nothing = capture(model, path=Path(scratch) / "nothing", **arguments)
    codec_model = options.get("codec_model")
    return UnitPlan(
        num_windows=len(parts),
        unit_windows=unit_windows,
        windows_digest=parts.digest(),
        codec=options.get("codec", DEFAULT_CODEC),
        codec_model=None if codec_model is None else codec_model.digest,
        config=nothing.config,
        metadata=nothing.metadata,
    )
