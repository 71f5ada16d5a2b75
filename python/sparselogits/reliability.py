"""Reliability: how sure a model was, how right it was, bin by bin; kept as JSON."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparselogits.errors import CacheIOError, FormatError, InvalidArgumentError

_KIND, _VERSION = "sparselogits.reliability", 1


@dataclass(frozen=True)
class ReliabilityBin:
    """Positions whose confidence lay in lower ≤ c < upper (≤ in the last bin).

    Attributes:
        lower, upper: Its bounds.
        count: Positions, at least 1.
        confidence: Mean probability that the model gave its most likely token.
        accuracy: How often that token was right.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """Calibration of the most likely token; made by `CalibrationMeter.compute`.

    Attributes:
        binning: "equal_width" or "equal_mass".
        bins: Those that hold positions, ascending.
    """

    binning: str
    bins: tuple[ReliabilityBin, ...]

    @property
    def count(self) -> int:
        """Number of positions."""
        return sum(part.count for part in self.bins)

    @property
    def confidence(self) -> float:
        """Mean over positions."""
        return self._mean([part.confidence for part in self.bins])

    @property
    def accuracy(self) -> float:
        """Mean over positions."""
        return self._mean([part.accuracy for part in self.bins])

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |accuracy - confidence|, 0 to 1 (Guo et al. 2017).

        The noise of labels adds to it: compare with `noise_floor`.
        """
        return self._mean([abs(part.accuracy - part.confidence) for part in self.bins])

    @property
    def mce(self) -> float:
        """Maximum calibration error: the largest |accuracy - confidence| of a bin."""
        return max(abs(part.accuracy - part.confidence) for part in self.bins)

    @property
    def noise_floor(self) -> float:
        """About the ECE that a perfectly calibrated model would show on as many labels.

        The mean of |noise| where a bin's accuracy is normal with variance c (1 - c) / count.
        """
        return self._mean(
            [
                math.sqrt(2 / math.pi * part.confidence * (1 - part.confidence) / part.count)
                for part in self.bins
            ]
        )

    def summary(self) -> dict[str, Any]:
        """The figures without the bins, JSON-ready."""
        names = ("count", "ece", "mce", "noise_floor", "accuracy", "confidence")
        return {"binning": self.binning} | {name: getattr(self, name) for name in names}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON that `load` and `sparselogits plot` read.

        Raises:
            CacheIOError: The file cannot be written.
        """
        content = {"kind": _KIND, "version": _VERSION, **self.summary()}
        content["bins"] = [asdict(part) for part in self.bins]
        try:
            Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise CacheIOError(f"{os.fspath(path)}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reliability:
        """Reads what `save` wrote; the figures are computed again from the bins.

        Raises:
            CacheIOError: The file cannot be read.
            FormatError: It holds something else.
        """
        name = os.fspath(path)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CacheIOError(f"{name}: {error.strerror}") from error
        except ValueError as error:
            raise FormatError(f"no JSON: {error}", path=name) from error
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            raise FormatError(f"no {_KIND} file", path=name, field="kind")
        if content.get("version") != _VERSION:
            raise FormatError(
                f"version {content.get('version')!r}; this release reads {_VERSION}",
                path=name,
                field="version",
            )
        if content.get("binning") not in ("equal_width", "equal_mass"):
            raise FormatError(f"{content.get('binning')!r}", path=name, field="binning")
        return cls(content["binning"], _bins(content.get("bins"), name))

    def plot(self, path: str | os.PathLike[str], title: str | None = None) -> None:
        """Draws the reliability diagram into an image file; needs matplotlib.

        Raises:
            InvalidArgumentError: matplotlib is missing.
        """
        from sparselogits.reliability_plot import save_diagrams

        save_diagrams([(title or "", self)], path)

    def _mean(self, values: list[float]) -> float:
        if not self.bins:
            raise InvalidArgumentError("no bin holds a position")
        total = sum(part.count for part in self.bins)
        return sum(v * part.count for v, part in zip(values, self.bins, strict=True)) / total


def _bins(rows: Any, path: str) -> tuple[ReliabilityBin, ...]:
    if not isinstance(rows, list) or not rows:
        raise FormatError("it must be a list of at least one bin", path=path, field="bins")
    bins = []
    for number, row in enumerate(rows):
        field = f"bins[{number}]"
        try:
            part = ReliabilityBin(**row)
        except TypeError as error:
            raise FormatError(str(error), path=path, field=field) from error
        if not _is_bin(part):
            raise FormatError(f"{row} is no bin", path=path, field=field)
        bins.append(part)
    return tuple(bins)


def _is_bin(part: ReliabilityBin) -> bool:
    fractions = (part.lower, part.upper, part.confidence, part.accuracy)
    if type(part.count) is not int or part.count < 1:
        return False
    if not all(type(v) in (int, float) and math.isfinite(v) and v >= 0 for v in fractions):
        return False
    # A mean of rounded confidences may lie outside of its bin by that rounding.
    return (
        part.lower < part.upper <= 1 and part.lower - 1e-6 <= part.confidence <= part.upper + 1e-6
    )
