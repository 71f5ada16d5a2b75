"""Time and memory of the losses on a CUDA device, as ratios to cross-entropy.

This could not be run where it was written: there was no GPU. Only its functions ran there, on a
CPU.

Every form is timed with CUDA events, forward and backward, in turns with the reference of its
group in the same run: `F.cross_entropy` for given logits, `F.linear` + `F.cross_entropy` for a
head. Each step gets a fresh copy of its first input, made outside the measurement. The time is the
best of the repeats. Memory is the peak of torch's allocator above what was there before the step;
for a head without the gradients of hidden states and weight, which every form must return. Forms
of liger-kernel and cut-cross-entropy are measured where these are installed.

    python benchmarks/bench_loss_gpu.py [--vocab 131072] [--rows 8192] [--hidden 4096] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, sparse_kd_loss
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss

Form = Callable[[Tensor], Tensor]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass
class Result:
    """One line of the table; ratios are to the first line of its group."""

    group: str
    form: str
    rows: int
    vocab: int
    milliseconds: float
    time_ratio: float
    extra_bytes: int
    memory_ratio: float


def make_targets(rows: int, vocab: int, entries: int, device: torch.device) -> SparseTargets:
    """Rows of `entries` distinct ids with weights that sum to one."""
    steps = torch.randint(1, vocab // entries, (rows, entries))
    weights = torch.rand(rows, entries)
    offsets = torch.arange(0, rows * entries + 1, entries)
    return SparseTargets(
        offsets,
        (steps.cumsum(1) - 1).flatten(),
        (weights / weights.sum(1, keepdim=True)).flatten(),
        vocab,
    ).to(device)


def logit_forms(labels: Tensor, targets: SparseTargets) -> dict[str, Form]:
    """Losses of given logits."""
    return {
        "F.cross_entropy": lambda z: F.cross_entropy(z, labels),
        "sparse_kd_loss": lambda z: sparse_kd_loss(z, targets),
        "sparse_kd_loss, inplace": lambda z: sparse_kd_loss(z, targets, inplace=True),
    }


def head_forms(weight: Tensor, labels: Tensor, targets: SparseTargets) -> dict[str, Form]:
    """The output head together with its loss, of given hidden states."""
    forms: dict[str, Form] = {
        "linear + F.cross_entropy": lambda x: F.cross_entropy(F.linear(x, weight), labels),
        "linear + sparse_kd_loss, inplace": lambda x: sparse_kd_loss(
            F.linear(x, weight), targets, inplace=True
        ),
        "fused_linear_sparse_kd_loss": lambda x: fused_linear_sparse_kd_loss(x, weight, targets),
        "linear_lse_sparse_kd_loss": lambda x: linear_lse_sparse_kd_loss(x, weight, targets),
    }
    if find_spec("liger_kernel"):
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        from sparselogits.integrations.liger import liger_sparse_kd_loss

        forms["liger, cross-entropy"] = lambda x: liger_fused_linear_cross_entropy(
            x, weight, labels, accum_dtype=torch.float32
        )
        forms["liger_sparse_kd_loss"] = lambda x: liger_sparse_kd_loss(x, weight, targets)
    if find_spec("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        from sparselogits.integrations.cut_cross_entropy import cut_cross_entropy_sparse_kd_loss

        forms["cut_cross_entropy, cross-entropy"] = lambda x: linear_cross_entropy(
            x, weight, labels
        )
        forms["cut_cross_entropy_sparse_kd_loss"] = lambda x: cut_cross_entropy_sparse_kd_loss(
            x, weight, targets
        )
    return forms


def step(form: Form, x: Tensor, others: list[Tensor]) -> tuple[Tensor, ...]:
    """One forward and backward; the gradients of `x` and `others`."""
    return torch.autograd.grad(form(x), [x, *others])


def milliseconds(form: Form, leaf: Tensor, others: list[Tensor]) -> float:
    """Of one step, on the device."""
    x = leaf.clone()
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step(form, x, others)
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))


def peak_bytes(form: Form, leaf: Tensor, others: list[Tensor]) -> int:
    """The most that a step holds at once; without the gradients that every form must return."""
    x = leaf.clone()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients = step(form, x, others)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return peak - (sum(gradient.nbytes for gradient in gradients) if others else 0)


def measure(
    group: str, forms: dict[str, Form], leaf: Tensor, others: list[Tensor], vocab: int, repeats: int
) -> list[Result]:
    """Times the forms in turns and takes the best of each."""
    best = dict.fromkeys(forms, float("inf"))
    for form in forms.values():
        step(form, leaf.clone(), others)  # compiles kernels
    extra = {name: peak_bytes(form, leaf, others) for name, form in forms.items()}
    for _ in range(repeats):
        for name, form in forms.items():
            best[name] = min(best[name], milliseconds(form, leaf, others))
    first = next(iter(forms))
    return [
        Result(
            group=group,
            form=name,
            rows=leaf.shape[0],
            vocab=vocab,
            milliseconds=best[name],
            time_ratio=best[name] / best[first],
            extra_bytes=extra[name],
            memory_ratio=extra[name] / max(1, extra[first]),
        )
        for name in forms
    ]


def run(options: argparse.Namespace, rows: int, device: torch.device) -> list[Result]:
    """All forms at one size."""
    torch.manual_seed(0)
    vocab, dtype, repeats = options.vocab, DTYPES[options.dtype], options.repeats
    labels = torch.randint(vocab, (rows,), device=device)
    targets = make_targets(rows, vocab, options.entries, device)
    logits = torch.randn(rows, vocab, device=device, dtype=dtype, requires_grad=True)
    results = measure("logits", logit_forms(labels, targets), logits, [], vocab, repeats)
    del logits
    hidden = torch.randn(rows, options.hidden, device=device, dtype=dtype, requires_grad=True)
    weight = torch.empty(vocab, options.hidden, device=device, dtype=dtype)
    weight.normal_(std=0.02).requires_grad_()
    forms = head_forms(weight, labels, targets)
    return results + measure("head", forms, hidden, [weight], vocab, repeats)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=131072)
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--hidden", type=int, default=4096, help="width of the student")
    parser.add_argument("--entries", type=int, default=12, help="ids per row")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device; benchmarks/bench_loss.py measures on a CPU")
    device = torch.device("cuda")
    results = [result for rows in options.rows for result in run(options, rows, device)]
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
        return
    print(
        f"{torch.cuda.get_device_name()}  V={options.vocab} H={options.hidden} "
        f"{options.entries} ids/row, {options.dtype}, forward+backward"
    )
    print(f"{'form':36}{'rows':>6}{'ms':>9}{'time':>8}{'memory':>9}{'MiB':>8}")
    for r in results:
        print(
            f"{r.form:36}{r.rows:6d}{r.milliseconds:9.2f}{r.time_ratio:8.2f}"
            f"{r.memory_ratio:9.2f}{r.extra_bytes / 2**20:8.0f}"
        )


if __name__ == "__main__":
    main()
