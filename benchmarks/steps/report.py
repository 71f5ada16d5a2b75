"""Overheads with their standard errors, and the page."""

from __future__ import annotations

import math
import platform
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steps.forms import AGAIN, CROSS_ENTROPIES, FUSED_CE, MEASURED, SPARSE

CPU, WALL = 0, 1
Times = dict[str, list[list[float]]]


@dataclass(frozen=True)
class Overhead:
    """Percent by which the steps of a form take longer than those of another, pair by pair."""

    percent: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.percent:+.2f} ± {self.standard_error:.2f} %"


def overhead(times: Times, form: str, baseline: str, clock: int) -> Overhead:
    """The mean of the differences of pairs of the same round, over the baseline's mean.

    Forms that did not join all rounds are compared by their means.
    """
    ours = [step[clock] for step in times[form]]
    theirs = [step[clock] for step in times[baseline]]
    scale = 100 / statistics.fmean(theirs)
    if len(ours) == len(theirs):
        pairs = [(a - b) * scale for a, b in zip(ours, theirs, strict=True)]
        error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else math.nan
        return Overhead(statistics.fmean(pairs), error)
    error = statistics.stdev(ours) / math.sqrt(len(ours)) * scale if len(ours) > 1 else math.nan
    return Overhead(statistics.fmean(ours) * scale - 100, error)


def strictest(times: Times) -> str:
    """The cross-entropy that takes the least CPU time."""
    measured = [form for form in CROSS_ENTROPIES if form in times]
    return min(measured, key=lambda form: statistics.fmean(step[CPU] for step in times[form]))


def page(times: Times, memory: dict[str, float], options: dict[str, Any]) -> str:
    """The table as Markdown."""
    baseline = strictest(times)
    tokens = options["batch_size"] * 512
    lines = [
        "# A training step",
        "",
        f"`python benchmarks/bench_step.py --rounds {options['rounds']} --markdown "
        f"docs/results/step.md`, {processor()}, "
        f"{options['threads']} threads, torch {torch.__version__}, float32. Student: a Llama of "
        "SmolLM2's width (hidden 576, vocabulary 49,152, tied) with 4 layers, 42.5 M parameters; "
        f"teacher: the same with 30, 134.5 M. {tokens:,} tokens a step, forward, backward and "
        f"fused AdamW; {options['rounds']} rounds in random order within each.",
        "",
        "The sparse step reads a compact cache of a real teacher's draws (50 multinomial rounds, "
        "12 ids a position) through `SparseLogitDataset`, loader included. The cross-entropies "
        "have their batches in memory. Overheads are means of paired differences with their "
        f"standard errors, over the cross-entropy that takes the least CPU time: {baseline}.",
        "",
        "| step | CPU s | overhead | s | overhead | process peak, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for form in MEASURED:
        cells = [form]
        for clock in (CPU, WALL):
            cells.append(f"{statistics.median(step[clock] for step in times[form]):.3f}")
            cells.append("-" if form == baseline else str(overhead(times, form, baseline, clock)))
        cells.append(f"{memory[form]:,.0f}" if form in memory else "-")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Resolution: {AGAIN} differs from itself by {overhead(times, AGAIN, FUSED_CE, CPU)}. "
        f"Claim: {SPARSE} costs at most 2 % more CPU time than the baseline.",
    ]
    return "\n".join(lines) + "\n"


def summary(times: Times) -> dict[str, Any]:
    """What the claim rests on, for scripts."""
    baseline = strictest(times)
    found = overhead(times, SPARSE, baseline, CPU)
    return {
        "baseline": baseline,
        "overhead_percent": found.percent,
        "standard_error_percent": found.standard_error,
    }


def processor() -> str:
    """Its name, as Linux has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()
