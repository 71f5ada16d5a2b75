"""Time of sampling on a GPU, beside what it follows and what it replaces.

    python benchmarks/bench_sampling_gpu.py [--rows 8192] [--rounds 50] [--repeats 10] [--json]

`--device cpu` with few rows runs everything but Triton, to see that it does. Medians; the L2 cache
is left as it is, since logits are several times larger.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from sparselogits.sampling import check_keys, check_options
from sparselogits.sampling_torch import rows as sampling_rows

VOCABULARIES = (49_152, 131_072)
WIDTH = 4096
BASELINE = "one read of the logits"


def milliseconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    run()  # compiles, and fills the allocator's cache
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def by_softmax(logits: torch.Tensor, rounds: int) -> torch.Tensor:
    return torch.multinomial(torch.softmax(logits, -1, dtype=torch.float32), rounds, True)


def by_cumulative_sums(logits: torch.Tensor, rounds: int) -> torch.Tensor:
    ends = torch.softmax(logits, -1, dtype=torch.float32).cumsum(-1)
    points = torch.rand(len(logits), rounds, device=logits.device) * ends[:, -1:]
    return torch.searchsorted(ends, points.sort(-1).values)


def candidates(
    logits: torch.Tensor, hidden: torch.Tensor, head: torch.Tensor, rounds: int
) -> dict[str, Callable[[], object]]:
    runs: dict[str, Callable[[], object]] = {
        BASELINE: lambda: logits.amax(-1),
        "LM head": lambda: hidden @ head.T,
        "softmax + multinomial": lambda: by_softmax(logits, rounds),
        "softmax + cumsum + searchsorted": lambda: by_cumulative_sums(logits, rounds),
    }
    backends = {"torch": sampling_rows.tiles}
    if logits.device.type == "cuda":
        backends["Triton"] = sampling_rows.best_backend(logits.device)
    keys = check_keys(None, len(logits))
    for sampler, draws in (("multinomial", rounds), ("systematic", rounds // 2)):
        options = check_options(
            rounds=draws,
            sampler=sampler,
            temperature=1.0,
            proposal_temperature=1.0,
            seed=0,
            offset=0.0,
            self_normalize=False,
            num_threads=None,
        )
        for name, backend in backends.items():
            run = partial(sampling_rows.sample_with_torch, logits, keys, options, backend)
            runs[f"sample, {sampler} {draws}, {name}"] = run
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here: nothing was measured.")
        return
    results = {}
    for vocab_size in VOCABULARIES:
        hidden = torch.randn(arguments.rows, WIDTH, device=device, dtype=torch.bfloat16)
        head = torch.randn(vocab_size, WIDTH, device=device, dtype=torch.bfloat16) / WIDTH**0.5
        logits = 2.5 * (hidden @ head.T)
        runs = candidates(logits, hidden, head, arguments.rounds)
        results[vocab_size] = {
            name: milliseconds(run, device, arguments.repeats) for name, run in runs.items()
        }
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    if arguments.json:
        print(json.dumps({"device": name, "rows": arguments.rows, "milliseconds": results}))
        return
    for vocab_size, times in results.items():
        print(f"{name}, {arguments.rows} rows of {vocab_size} bfloat16 logits")
        for run, taken in times.items():
            print(f"  {run:38} {taken:9.3f} ms   {taken / times[BASELINE]:6.2f} x {BASELINE}")


if __name__ == "__main__":
    main()
