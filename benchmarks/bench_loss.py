"""Time and memory of the sparse losses, forward and backward, as ratios to cross-entropy.

Every row is timed in the same run, in turns with the reference of its group: `F.cross_entropy` for
the losses on given logits, `F.linear` + `F.cross_entropy` for the head with a loss. Each step gets
a fresh copy of its first input, made outside the measurement, since a form may overwrite it.
Memory is the most that a step holds at once beyond its inputs, by the CPU profiler. The gradient of
given logits counts, because a form may do without; gradients of hidden states and weight do not.

    python benchmarks/bench_loss.py [--vocab 49152] [--rows 512 2048] [--hidden 576] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss


@dataclass
class Result:
    """One line of the table; ratios are to the first line of its group."""

    group: str
    form: str
    rows: int
    vocab: int
    seconds: float
    time_ratio: float
    extra_bytes: int
    memory_ratio: float


def make_targets(rows: int, vocab: int, entries: int) -> SparseTargets:
    """Rows of `entries` distinct ids with weights that sum to one."""
    ids = torch.stack([torch.randperm(vocab)[:entries].sort().values for _ in range(rows)])
    weights = torch.rand(rows, entries).softmax(-1)
    offsets = torch.arange(0, rows * entries + 1, entries)
    return SparseTargets(offsets, ids.flatten(), weights.flatten(), vocab)


def logsumexp_gather(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The same loss in eager operations, as it is usually written."""
    entries = targets.num_entries // targets.num_rows
    picked = logits.gather(1, targets.token_ids.view(-1, entries))
    weights = targets.weights.view(-1, entries)
    return (weights.sum(-1) * logits.logsumexp(-1) - (weights * picked).sum(-1)).mean()


def dense_kl(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The same gradient through a dense target."""
    entries = targets.num_entries // targets.num_rows
    dense = torch.zeros_like(logits)
    dense.scatter_(1, targets.token_ids.view(-1, entries), targets.weights.view(-1, entries))
    return F.kl_div(F.log_softmax(logits, -1), dense, reduction="batchmean")


Form = Callable[[Tensor], Tensor]


def logit_forms(labels: Tensor, targets: SparseTargets) -> dict[str, Form]:
    """Losses of given logits."""
    return {
        "F.cross_entropy": lambda z: F.cross_entropy(z, labels),
        "sparse_kd_loss": lambda z: sparse_kd_loss(z, targets),
        "sparse_kd_loss, inplace": lambda z: sparse_kd_loss(z, targets, inplace=True),
        "logsumexp - gather, eager": lambda z: logsumexp_gather(z, targets),
        "dense target + kl_div": lambda z: dense_kl(z, targets),
    }


def head_forms(weight: Tensor, labels: Tensor, targets: SparseTargets) -> dict[str, Form]:
    """The output head together with its loss, of given hidden states."""
    return {
        "linear + F.cross_entropy": lambda x: F.cross_entropy(F.linear(x, weight), labels),
        "linear + sparse_kd_loss": lambda x: sparse_kd_loss(F.linear(x, weight), targets),
        "fused_linear_sparse_kd_loss": lambda x: fused_linear_sparse_kd_loss(x, weight, targets),
    }


def step(form: Form, x: Tensor, others: list[Tensor]) -> tuple[Tensor, ...]:
    """One forward and backward; the gradients of `x` and `others`."""
    return torch.autograd.grad(form(x), [x, *others])


def seconds(form: Form, leaf: Tensor, others: list[Tensor]) -> float:
    """Seconds of one step."""
    x = leaf.clone()
    start = time.perf_counter()
    step(form, x, others)
    return time.perf_counter() - start


def peak_bytes(form: Form, leaf: Tensor, others: list[Tensor]) -> int:
    """The most that a step holds at once; without the gradients that every form must return."""
    x = leaf.clone()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        gradients = step(form, x, others)
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak - (sum(gradient.nbytes for gradient in gradients) if others else 0)


def measure(
    group: str, forms: dict[str, Form], leaf: Tensor, others: list[Tensor], vocab: int, repeats: int
) -> list[Result]:
    """Times the forms in turns and takes the best of each."""
    best = dict.fromkeys(forms, float("inf"))
    # This warms up as well.
    extra = {name: peak_bytes(form, leaf, others) for name, form in forms.items()}
    for _ in range(repeats):
        for name, form in forms.items():
            best[name] = min(best[name], seconds(form, leaf, others))
    first = next(iter(forms))
    return [
        Result(
            group=group,
            form=name,
            rows=leaf.shape[0],
            vocab=vocab,
            seconds=best[name],
            time_ratio=best[name] / best[first],
            extra_bytes=extra[name],
            memory_ratio=extra[name] / extra[first],
        )
        for name in forms
    ]


def run(vocab: int, rows: int, hidden_size: int, entries: int, repeats: int) -> list[Result]:
    """All forms at one size."""
    torch.manual_seed(0)
    labels = torch.randint(vocab, (rows,))
    targets = make_targets(rows, vocab, entries)
    logits = torch.randn(rows, vocab, requires_grad=True)
    results = measure("logits", logit_forms(labels, targets), logits, [], vocab, repeats)
    hidden = torch.randn(rows, hidden_size, requires_grad=True)
    weight = torch.empty(vocab, hidden_size).normal_(std=0.02).requires_grad_()
    heads = head_forms(weight, labels, targets)
    return results + measure("head", heads, hidden, [weight], vocab, repeats)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rows", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--hidden", type=int, default=576, help="width of the student")
    parser.add_argument("--entries", type=int, default=12, help="ids per row")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [
        result
        for rows in options.rows
        for result in run(options.vocab, rows, options.hidden, options.entries, options.repeats)
    ]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return
    print(f"V={options.vocab} H={options.hidden} {options.entries} ids/row, fp32, forward+backward")
    print(f"{'form':30}{'rows':>6}{'ms':>9}{'time':>8}{'memory':>9}{'MiB':>8}")
    for r in results:
        print(
            f"{r.form:30}{r.rows:6d}{r.seconds * 1e3:9.1f}{r.time_ratio:8.2f}"
            f"{r.memory_ratio:9.2f}{r.extra_bytes / 2**20:8.0f}"
        )


if __name__ == "__main__":
    main()
