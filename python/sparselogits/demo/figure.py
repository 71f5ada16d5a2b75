"""The demo's picture: what a position costs, where the gradient points, how the students learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OURS, _PAPER, _BIASED, _GREY = "#0b7285", "#74b3c4", "#d9480f", "#868e96"


def save_figure(results: Mapping[str, Any], path: Path) -> None:
    """Draws the dictionary that `run` returns into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
    }
    with pyplot.rc_context(style):
        figure, (sizes, angles, curves) = pyplot.subplots(
            1, 3, figsize=(13, 3.9), layout="constrained", width_ratios=(1.15, 1, 1.15)
        )
        _draw_sizes(sizes, results)
        _draw_angles(angles, results)
        _draw_curves(curves, results)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
        pyplot.close(figure)


def _draw_sizes(axes: Any, results: Mapping[str, Any]) -> None:
    multinomial, systematic = results["caches"]["multinomial"], results["caches"]["systematic"]
    bars = [
        ("full logits\nfloat16", results["full_logits_bytes_per_position"], _GREY),
        (f"paper's layout\nN={multinomial['rounds']}", multinomial["paper_bytes"], _PAPER),
        (f"multinomial\nN={multinomial['rounds']}", multinomial["records_bytes"], _OURS),
        (f"systematic\nN={systematic['rounds']}", systematic["records_bytes"], _OURS),
    ]
    drawn = axes.bar(
        [name for name, _, _ in bars], [v for _, v, _ in bars], color=[c for _, _, c in bars]
    )
    axes.bar_label(drawn, labels=[f"{v:,.0f}" if v > 1000 else f"{v:.1f}" for _, v, _ in bars])
    axes.set_yscale("log")
    axes.set_ylim(1, 600_000)
    axes.set_title("Bytes per position (log)")


def _draw_angles(axes: Any, results: Mapping[str, Any]) -> None:
    angles, caches = results["angles"], results["caches"]
    names = {
        "top_12": ("Top-12", _BIASED),
        "top_50": ("Top-50", _BIASED),
        "multinomial": (f"multinomial\nN={caches['multinomial']['rounds']}", _PAPER),
        "systematic": (f"systematic\nN={caches['systematic']['rounds']}", _OURS),
    }
    values = [angles[key]["degrees"] for key in names]
    drawn = axes.bar(
        [name for name, _ in names.values()], values, color=[c for _, c in names.values()]
    )
    axes.bar_label(drawn, labels=[f"{v:.1f}°" for v in values])
    axes.set_ylim(0, max(values) * 1.15)
    axes.set_title("Gradient angle to full distillation")


def _draw_curves(axes: Any, results: Mapping[str, Any]) -> None:
    styles = {"cross_entropy": ("cross-entropy", _BIASED), "rs_kd": ("from the cache", _OURS)}
    for key, (name, color) in styles.items():
        curve = results["curves"][key]
        # The first point, before any step, would squeeze everything that happens later.
        steps, losses = curve["steps"][1:], curve["held_out_loss"][1:]
        axes.plot(steps, losses, "o-", color=color, linewidth=2, markersize=4, label=name)
    axes.set_xlabel("step")
    axes.set_title("Student's held-out loss (nats)")
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.3)
