"""The study as CSV, Markdown tables and a plot."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from estimators.biased import SelfNormalised, TopK
from estimators.table import Row
from sparselogits.torch.meters import MeanGradientAngle


@dataclass(frozen=True)
class Line:
    """A row of the study with its angles at few and at many positions."""

    row: Row
    few: MeanGradientAngle
    many: MeanGradientAngle

    @property
    def is_ghost(self) -> bool:
        return isinstance(self.row.estimator, TopK) and self.row.estimator.rest == "ghost"


def write_csv(lines: Sequence[Line], path: Path) -> None:
    """One line an estimator and regime; figures at the size and, where unbiased, when matched."""
    records: list[dict[str, Any]] = []
    for line in lines:
        row = line.row
        record: dict[str, Any] = {
            "regime": row.regime,
            "estimator": row.estimator.name,
            "biased": row.biased,
            "size_name": row.estimator.size_name,
        }
        for prefix, figures in (
            ("", row.at_size),
            ("at_error_", row.at_error),
            ("at_ids_", row.at_ids),
            ("at_bytes_c_", row.at_bytes),
        ):
            for name, value in asdict(row.at_size).items():
                record[prefix + name] = "" if figures is None else getattr(figures, name, value)
            record[prefix + "bytes_c"] = "" if figures is None else figures.bytes_c
        for prefix, angle in (("few_", line.few), ("many_", line.many)):
            record |= {prefix + name: value for name, value in asdict(angle).items()}
        records.append({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def tables(lines: Sequence[Line], regime: str) -> str:
    """The Markdown tables of one regime."""
    mine = [line for line in lines if line.row.regime == regime]
    return f"{_matched_table(mine)}\n\n{_angle_table(mine)}\n"


def write_tables(lines: Sequence[Line], path: Path) -> None:
    """Puts the tables of each regime between its marks in a file, and leaves the text around."""
    regimes = list(dict.fromkeys(line.row.regime for line in lines))
    if not path.exists():
        path.write_text("".join(f"{mark}\n" for name in regimes for mark in _marks(name)))
    text = path.read_text(encoding="utf-8")
    for name in regimes:
        begin, end = _marks(name)
        before, rest = text.split(begin, 1)
        _, after = rest.split(end, 1)
        text = f"{before}{begin}\n{tables(lines, name)}{end}{after}"
    path.write_text(text, encoding="utf-8")


def _marks(regime: str) -> tuple[str, str]:
    return f"<!-- tables of {regime} -->", f"<!-- end of {regime} -->"


def _matched_table(lines: Sequence[Line]) -> str:
    out = [
        "| estimator | size | ids | A, B | C, B "
        "| Σ Var at the ids of N = 50 | Σ Var at its C bytes |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        row = line.row
        if row.at_error is None or row.at_ids is None or row.at_bytes is None:
            continue
        matched = row.at_error
        size = f"{matched.size:.3g}" if row.estimator.size_name == "τ" else f"{matched.size:.1f}"
        out.append(
            f"| {row.estimator.name} | {row.estimator.size_name} = {size} | {matched.ids:.1f} "
            f"| {matched.bytes_a:.1f} | {matched.bytes_c:.1f} "
            f"| {row.at_ids.squared_error:.5f} ({row.at_ids.squared_error / row.wanted_error:.2f}) "
            f"| {row.at_bytes.squared_error:.5f} "
            f"({row.at_bytes.squared_error / row.wanted_error:.2f}) |"
        )
    return "\n".join(out)


def _angle_table(lines: Sequence[Line]) -> str:
    few, many = (f"{a.batches} batches" for a in (lines[0].few, lines[0].many))
    out = [
        f"| estimator | ids | L2 = E Σ (w - p)² | χ² | angle, norm at 64 ({few}) "
        f"| angle, norm at 1,024 ({many}) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for line in lines:
        facts = line.row.at_size
        error, chi = f"{facts.squared_error:.5f}", f"{facts.chi_square:,.4g}"
        if line.is_ghost:
            error = chi = "depends on the student"
        out.append(
            f"| {line.row.label}{' (biased)' if line.row.biased else ''} | {facts.ids:.1f} "
            f"| {error} | {chi} | {_angle(line.few)} | {_angle(line.many)} |"
        )
    return "\n".join(out)


def _angle(angle: MeanGradientAngle) -> str:
    return (
        f"{angle.degrees:.1f}° ± {angle.degrees_error:.1f}, "
        f"{angle.norm_ratio:.2f} ± {angle.norm_error:.2f}"
    )


def plot(lines: Sequence[Line], path: Path) -> None:
    """Left: error against bytes. Right: the angle at both numbers of positions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    regimes = list(dict.fromkeys(line.row.regime for line in lines))
    figure, grid = pyplot.subplots(
        len(regimes), 2, figsize=(12.5, 4.3 * len(regimes)), layout="constrained", squeeze=False
    )
    for (errors, angles), regime in zip(grid, regimes, strict=True):
        mine = [line for line in lines if line.row.regime == regime]
        _plot_errors(errors, mine, regime)
        _plot_angles(angles, mine, regime)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _plot_errors(axes: Any, lines: Sequence[Line], regime: str) -> None:
    from matplotlib import pyplot

    colors = iter(pyplot.get_cmap("tab10").colors)
    for line in lines:
        row = line.row
        if row.at_error is None or row.at_ids is None or row.at_bytes is None:
            continue
        figures = {row.at_error, row.at_ids, row.at_bytes}
        points = sorted((f.bytes_c, f.squared_error) for f in figures)
        style = "--" if isinstance(row.estimator, SelfNormalised) else "-"
        axes.plot(
            *zip(*points, strict=True),
            f"o{style}",
            color=next(colors),
            markersize=4,
            label=row.estimator.name,
        )
    axes.axhline(lines[0].row.wanted_error, color="#868e96", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("ideally coded bytes per position")
    axes.set_title(f"{regime}: E Σ (w - p)²", loc="left", weight="bold")
    axes.legend(frameon=False, fontsize=7)


def _plot_angles(axes: Any, lines: Sequence[Line], regime: str) -> None:
    places = range(len(lines))
    for angles, color, name in (
        ([line.few for line in lines], "#74b3c4", "64 positions"),
        ([line.many for line in lines], "#0b7285", "1,024 positions"),
    ):
        axes.errorbar(
            [angle.degrees for angle in angles],
            places,
            xerr=[angle.degrees_error for angle in angles],
            fmt="o",
            color=color,
            label=name,
        )
    axes.set_yticks(places, [line.row.label for line in lines], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(f"{regime}: degrees to full distillation", loc="left", weight="bold")
    axes.legend(frameon=False)
