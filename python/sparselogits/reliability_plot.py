"""Reliability diagrams as a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from sparselogits.errors import CacheIOError, InvalidArgumentError
from sparselogits.reliability import Reliability, ReliabilityBin

_BAR, _ABOVE, _BELOW, _GREY = "#0b7285", "#f0a58a", "#8ccfdb", "#868e96"
_STYLE: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.5}


def save_diagrams(
    diagrams: Sequence[tuple[str, Reliability]], path: str | os.PathLike[str]
) -> None:
    """Draws diagrams with their titles side by side; the suffix of the path says which format.

    Raises:
        InvalidArgumentError: matplotlib is missing, or knows no such format.
        CacheIOError: The file cannot be written.
    """
    if find_spec("matplotlib") is None:
        raise InvalidArgumentError("a plot needs matplotlib: pip install 'sparselogits[plot]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(diagrams), 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(diagrams), height_ratios=(4, 1))
    for column, (title, reliability) in enumerate(diagrams):
        upper = figure.add_subplot(grid[0, column])
        _draw_accuracy(upper, reliability, title)
        _draw_counts(figure.add_subplot(grid[1, column], sharex=upper), reliability)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:  # a format that matplotlib has not
        raise InvalidArgumentError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise CacheIOError(f"{os.fspath(path)}: {error.strerror}") from error


def _draw_accuracy(axes: Any, reliability: Reliability, title: str) -> None:
    axes.bar(*_columns(reliability.bins, lambda part: part.accuracy), color=_BAR, **_STYLE)
    for name, color, sign in (("too sure", _ABOVE, 1), ("not sure enough", _BELOW, -1)):
        bins = [part for part in reliability.bins if sign * (part.confidence - part.accuracy) > 0]
        left, gap, width = _columns(bins, lambda part: abs(part.confidence - part.accuracy))
        bottom = [min(part.confidence, part.accuracy) for part in bins]
        axes.bar(left, gap, width, bottom=bottom, color=color, label=name, **_STYLE)
    axes.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    figures = (
        f"ECE {100 * reliability.ece:.2f} %, noise alone {100 * reliability.noise_floor:.2f} %"
    )
    axes.set_title(f"{title}\n{figures}" if title else figures, fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _draw_counts(axes: Any, reliability: Reliability) -> None:
    total = reliability.count
    axes.bar(*_columns(reliability.bins, lambda part: part.count / total), color=_GREY, **_STYLE)
    axes.set(xlabel="confidence", ylabel="positions", xlim=(0, 1))


def _columns(
    bins: Sequence[ReliabilityBin], height: Callable[[ReliabilityBin], float]
) -> tuple[list[float], list[float], list[float]]:
    """Left edges, heights and widths."""
    return (
        [part.lower for part in bins],
        [height(part) for part in bins],
        [part.upper - part.lower for part in bins],
    )
