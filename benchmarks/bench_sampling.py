"""What `sample` costs beside a log-sum-exp and beside torch, one thread, in one run.

    python benchmarks/bench_sampling.py [--rows 128] [--repeats 9] [--json] [--markdown FILE]

Ratios of timings taken in turns in one process are what to compare across machines; a busy machine
shows in the spread of the baseline. The log-sum-exp is the sampler's own exponential and vectors
with nothing else to do (benchmarks/cpp/log_sum_exp.cc; needs a C++20 compiler).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from log_sum_exp import lanes_of_this_processor, log_sum_exp

import sparselogits as sl
from sparselogits.sampling import SAMPLERS

VOCABULARIES = (49_152, 131_072)
OWN = "own log-sum-exp"
TORCH = "torch softmax + multinomial"

Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {size: measure(size, args.rows, args.repeats) for size in VOCABULARIES}
    text = json.dumps(results, indent=2) if args.json else table(results, args.rows)
    print(text)
    if args.markdown:
        args.markdown.write_text(table(results, args.rows))


def make_logits(rows: int, vocabulary: int) -> torch.Tensor:
    """Rows about as sharp as a language model's: a Gaussian bulk and a few likely tokens."""
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(rows, vocabulary, generator=generator)
    likely = torch.randint(vocabulary, (rows, 20), generator=generator)
    return logits.scatter(1, likely, 8 + 3 * torch.randn(rows, 20, generator=generator))


def measure(vocabulary: int, rows: int, repeats: int) -> Times:
    """Microseconds per row."""
    logits = make_logits(rows, vocabulary)
    array = logits.numpy()
    out = torch.empty_like(logits)
    two_passes, one_pass = log_sum_exp("two_passes"), log_sum_exp("one_pass")
    exact = torch.logsumexp(logits.double(), -1).numpy()
    for function in (two_passes, one_pass):
        np.testing.assert_allclose(function(array), exact, atol=1e-6)
    functions: dict[str, Callable[[], object]] = {
        OWN: lambda: two_passes(array),
        f"{OWN}, one pass": lambda: one_pass(array),
        "torch logsumexp": lambda: torch.logsumexp(logits, -1),
        "torch softmax(out=)": lambda: torch.softmax(logits, -1, out=out),
        TORCH: lambda: torch.multinomial(torch.softmax(logits, -1), 50, replacement=True),
        "torch softmax + cumsum + searchsorted": lambda: cumulative_draws(logits, 50),
    }
    for name, kwargs in variants().items():
        dtype = kwargs.pop("dtype", torch.float32)
        given = logits.to(dtype)
        functions[name] = lambda given=given, kwargs=kwargs: sl.sample(
            given, num_threads=1, **kwargs
        )
    return best_times(functions, repeats, rows)


def variants() -> dict[str, dict[str, object]]:
    plain = {f"sample {sampler}, N = 50": {"sampler": sampler} for sampler in SAMPLERS}
    return {
        **plain,
        "sample systematic, N = 18": {"sampler": "systematic", "rounds": 18},
        "sample multinomial, N = 1": {"rounds": 1},
        "sample multinomial, N = 1,000": {"rounds": 1000},
        "sample multinomial, N = 65,535": {"rounds": 65535},
        "sample multinomial, bfloat16": {"dtype": torch.bfloat16},
        "sample multinomial, float16": {"dtype": torch.float16},
        "sample multinomial, temperature 0.8": {"temperature": 0.8},
        "sample multinomial, proposal 0.8": {"proposal_temperature": 0.8},
    }


def cumulative_draws(logits: torch.Tensor, rounds: int) -> torch.Tensor:
    cumulative = torch.softmax(logits, -1).cumsum(-1)
    return torch.searchsorted(cumulative, torch.rand(len(logits), rounds) * cumulative[:, -1:])


def best_times(functions: dict[str, Callable[[], object]], repeats: int, rows: int) -> Times:
    """The best of `repeats`, taken in turns so that noise hits all alike."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds / rows * 1e6 for name, seconds in best.items()}


def table(results: dict[int, Times], rows: int) -> str:
    sizes = list(results)
    head = "".join(f" V = {size:,}: µs/row | × {OWN} | × {TORCH} |" for size in sizes)
    lines = [
        "# Sampling: time per row",
        "",
        f"`python benchmarks/bench_sampling.py --markdown docs/results/sampling.md`, one thread, "
        f"{rows} rows, {lanes_of_this_processor()} lanes, {processor()}, "
        f"torch {torch.__version__}.",
        "",
        "| |" + head,
        "|---|" + "---|" * (3 * len(sizes)),
    ]
    for name in results[sizes[0]]:
        cells = ""
        for times in results.values():
            own, theirs = times[name] / times[OWN], times[name] / times[TORCH]
            cells += f" {times[name]:,.1f} | {own:.2f} | {theirs:.2f} |"
        lines.append(f"| {name} |{cells}")
    return "\n".join(lines) + "\n"


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
