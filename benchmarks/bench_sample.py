"""Time of `sample` on one thread against a dense torch softmax of the same rows.

    python benchmarks/bench_sample.py [--rows 128] [--rounds 50] [--repeats 5] [--json]

Ratios of timings taken in turns in one process are what to compare across machines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

import sparselogits as sl
from sparselogits.sampling import SAMPLERS

VOCABULARIES = (49_152, 131_072)
BASELINE = "torch softmax(out=)"


def make_logits(rows: int, vocabulary: int) -> torch.Tensor:
    """Rows about as sharp as a language model's: a Gaussian bulk and a few likely tokens."""
    generator = torch.Generator().manual_seed(0)
    logits = 2.0 * torch.randn(rows, vocabulary, generator=generator)
    likely = torch.randint(vocabulary, (rows, 20), generator=generator)
    return logits.scatter(1, likely, 8 + 3 * torch.randn(rows, 20, generator=generator))


def best_times(
    functions: dict[str, Callable[[], object]], repeats: int, rows: int
) -> dict[str, float]:
    """Microseconds per row: the best of `repeats`, taken in turns so that noise hits all alike."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: seconds / rows * 1e6 for name, seconds in best.items()}


def measure(vocabulary: int, rows: int, rounds: int, repeats: int) -> dict[str, float]:
    logits = make_logits(rows, vocabulary)
    out = torch.empty_like(logits)
    functions: dict[str, Callable[[], object]] = {
        BASELINE: lambda: torch.softmax(logits, -1, out=out),
        "torch softmax + multinomial": lambda: torch.multinomial(
            torch.softmax(logits, -1), rounds, replacement=True
        ),
    }
    for sampler in SAMPLERS:
        functions[f"sample {sampler}"] = lambda sampler=sampler: sl.sample(
            logits, rounds=rounds, sampler=sampler, num_threads=1
        )
    functions["sample multinomial, temperature 0.8"] = lambda: sl.sample(
        logits, rounds=rounds, temperature=0.8, num_threads=1
    )
    functions["sample multinomial, proposal 0.8"] = lambda: sl.sample(
        logits, rounds=rounds, proposal_temperature=0.8, num_threads=1
    )
    return best_times(functions, repeats, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        vocabulary: measure(vocabulary, arguments.rows, arguments.rounds, arguments.repeats)
        for vocabulary in VOCABULARIES
    }
    if arguments.json:
        print(json.dumps(results))
        return
    for vocabulary, times in results.items():
        print(f"V = {vocabulary}, rounds = {arguments.rounds}, one thread")
        for name, microseconds in times.items():
            ratio = microseconds / times[BASELINE]
            print(f"  {name:38} {microseconds:8.1f} us/row   {ratio:5.2f} x softmax(out=)")


if __name__ == "__main__":
    main()
