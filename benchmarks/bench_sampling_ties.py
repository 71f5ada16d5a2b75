"""How many draws move when the same hidden states give logits that are rounded differently.

    python benchmarks/bench_sampling_ties.py [--rows 256] [--vocab-size 49152] [--json]

Draws from identical logits are identical on every device, by construction (docs/decisions/0009);
with a CUDA device this is checked here. What differs between machines are the logits: a matrix
product adds in another order for another shape, library or device. A draw moves where its point
lies between the two places of a token's border.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch

import sparselogits as sl

WIDTH = 576
ROUNDS = {"multinomial": 50, "systematic": 24}


def make_head(rows: int, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and a head whose logits are about as sharp as a language model's."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(vocab_size, WIDTH, generator=generator) * (2.5 / WIDTH**0.5)
    likely = torch.randint(vocab_size, (rows, 20), generator=generator)
    strength = 1.2 + 0.5 * torch.randn((rows, 20, 1), generator=generator)
    hidden = torch.randn(rows, WIDTH, generator=generator) + (head[likely] * strength).sum(1)
    return hidden, head


def perplexity(logits: torch.Tensor) -> float:
    """The median over rows."""
    return float(torch.distributions.Categorical(logits=logits.double()).entropy().exp().median())


def heads(hidden: torch.Tensor, head: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """Ways to get the logits; the first is what the others are compared with."""
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "float32, all rows at once": lambda: hidden @ head.T,
        "float32, again": lambda: hidden @ head.T,
        "float32, row by row": lambda: torch.cat([row @ head.T for row in hidden.split(1)]),
        "float32, 2 shards of the vocabulary": lambda: by_shards(hidden, head, 2),
        "float32, 8 shards of the vocabulary": lambda: by_shards(hidden, head, 8),
        "float32, sums in another order": lambda: hidden[:, order] @ head[:, order].T,
        "float64, rounded once": lambda: (hidden.double() @ head.double().T).float(),
        "float32, logits rounded to bfloat16": lambda: (hidden @ head.T).bfloat16(),
        "bfloat16 states and head": lambda: hidden.bfloat16() @ head.bfloat16().T,
    }
    if torch.cuda.is_available():
        ways["float32, on the GPU"] = lambda: (hidden.cuda() @ head.cuda().T).cpu()
    return ways


def by_shards(hidden: torch.Tensor, head: torch.Tensor, shards: int) -> torch.Tensor:
    return torch.cat([hidden @ part.T for part in head.tensor_split(shards)], 1)


def moved(a: sl.Draws[torch.Tensor], b: sl.Draws[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """(rows,) draws that are of another token."""
    return (dense_counts(a, shape) - dense_counts(b, shape)).abs().sum(1) // 2


def dense_counts(draws: sl.Draws[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    assert draws.counts is not None
    counts = torch.zeros(shape, dtype=torch.int32)
    rows = torch.repeat_interleave(torch.arange(shape[0]), draws.offsets.diff().cpu())
    counts[rows, draws.token_ids.long().cpu()] = draws.counts.cpu()
    return counts


def measure(rows: int, vocab_size: int) -> tuple[float, list[dict[str, Any]]]:
    ways = heads(*make_head(rows, vocab_size))
    original = next(iter(ways.values()))()
    results = []
    for name, way in ways.items():
        logits = way()
        difference = (logits.double() - original.double()).abs()
        result: dict[str, Any] = {
            "logits": name,
            "logits_that_differ": (difference > 0).double().mean().item(),
            "largest_difference": difference.max().item(),
        }
        for sampler, rounds in ROUNDS.items():
            draws = [
                sl.sample(each, rounds=rounds, sampler=sampler, seed=1)
                for each in (original, logits)
            ]
            moves = moved(draws[0], draws[1], logits.shape)
            result[f"{sampler}_draws_moved"] = moves.sum().item() / (rows * rounds)
            if torch.cuda.is_available():
                on_gpu = sl.sample(logits.cuda(), rounds=rounds, sampler=sampler, seed=1)
                assert not moved(draws[1], on_gpu, logits.shape).any(), "the GPU draws differently"
        results.append(result)
    return perplexity(original), results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--vocab-size", type=int, default=49_152)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    typical, results = measure(arguments.rows, arguments.vocab_size)
    if arguments.json:
        print(json.dumps({"perplexity": typical, "results": results}, indent=2))
        return
    print(
        f"{arguments.rows} rows of {arguments.vocab_size} logits, perplexity {typical:.0f}; ",
        end="",
    )
    print("draws that moved, of all draws:")
    moves = " ".join(f"{f'{name} {rounds}':>16}" for name, rounds in ROUNDS.items())
    print(f"{'logits':38} {'differ':>8} {'at most':>9} {moves}")
    for result in results:
        moves = " ".join(f"{result[f'{name}_draws_moved']:16.1e}" for name in ROUNDS)
        print(
            f"{result['logits']:38} {result['logits_that_differ']:8.1%} "
            f"{result['largest_difference']:9.1e} {moves}"
        )
    if torch.cuda.is_available():
        print("The GPU drew the same as the CPU from each of these logits.")


if __name__ == "__main__":
    main()
