"""The results as text and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from .measure import Result

_TITLES = {
    "logits": "Logits given, ratio to `F.cross_entropy`",
    "head": "Head and loss, ratio to `linear` + `F.cross_entropy`; memory above dx and dW",
    "accumulating": "The same where `weight.grad` exists; memory above dx and `weight.grad`",
}


def text(results: Sequence[Result]) -> str:
    """Lines for a terminal."""
    lines = [f"{'form':34}{'rows':>6}{'V':>8}{'ms':>9}{'time':>18}{'memory':>18}{'MiB':>8}"]
    for r in results:
        lines.append(
            f"{r.form:34}{r.rows:6d}{r.vocab:8d}{r.seconds * 1e3:9.1f}"
            f"{_against(r.time_ratio, r.time_limit):>18}"
            f"{_against(r.memory_ratio, r.memory_limit):>18}{r.extra_bytes / 2**20:8.0f}"
        )
    return "\n".join(lines)


def markdown(results: Sequence[Result], command: str, sizes: str) -> str:
    """The page docs/results/loss.md."""
    lines = [
        "# Losses: time and memory",
        "",
        f"`{command}`: {sizes}, float32, forward and backward, {cpu_model()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}.",
        "",
        "Every time is the best of several turns, taken in turns with the first line of its table. "
        "Memory is the most that a step holds at once beyond its inputs, by torch's CPU profiler. "
        "Behind a ratio stands the limit that we set ourselves, and whether it is met.",
    ]
    for group in dict.fromkeys(r.group for r in results):
        shapes = list(dict.fromkeys((r.rows, r.vocab) for r in results))
        heads = [f"{rows:,} rows, V = {vocab:,}" for rows, vocab in shapes]
        columns = [f"{head}: ms | time | MiB | memory" for head in heads]
        lines += ["", f"## {_TITLES[group]}", "", f"| | {' | '.join(columns)} |"]
        lines += ["|---|" + "---:|" * (4 * len(shapes))]
        for form in dict.fromkeys(r.form for r in results if r.group == group):
            cells = []
            for r in (r for r in results if (r.group, r.form) == (group, form)):
                cells += [
                    f"{r.seconds * 1e3:,.0f}",
                    _against(r.time_ratio, r.time_limit),
                    f"{r.extra_bytes / 2**20:,.0f}",
                    _against(r.memory_ratio, r.memory_limit),
                ]
            lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cpu_model() -> str:
    """The processor's name and its vector instructions, as the loss's kernels see them."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}, {os.cpu_count()} cores)"


def _against(ratio: float, limit: float | None) -> str:
    if limit is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f} (≤ {limit:.2f}{'' if ratio <= limit else ': MISSED'})"
