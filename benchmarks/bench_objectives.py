"""Time and memory of every training objective, forward and backward, as ratios to cross-entropy.

Measured as by `bench_loss.py`: all forms in turns in one run, memory beyond the inputs, of which
the teacher's logits are one. Eager forms are the formulas in plain torch operations.

    python benchmarks/bench_objectives.py [--vocab 49152] [--rows 1024] [--json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import torch
import torch.nn.functional as F
from losses.forms import Form, Forms, Loss, make_targets
from losses.measure import Group, measure
from losses.table import text
from torch import Tensor

from sparselogits.torch.objectives import make_objective


def eager_ghost_token(z: Tensor, teacher: Tensor, k: int) -> Tensor:
    """The paper's K + 1 classes through autograd."""
    p, ids = teacher.softmax(-1).topk(k)
    log_q = z.log_softmax(-1).gather(-1, ids)
    p_rest, q_rest = 1 - p.sum(-1), 1 - log_q.exp().sum(-1)
    return (-(p * log_q).sum(-1) - p_rest * q_rest.log()).mean()


def eager_reverse_kd(z: Tensor, teacher: Tensor) -> Tensor:
    log_q = z.log_softmax(-1)
    return F.kl_div(teacher.log_softmax(-1), log_q, reduction="batchmean", log_target=True)


def forms(vocab: int, rows: int, k: int) -> Forms:
    """Losses of given logits; the first is the reference."""
    labels, teacher = torch.randint(vocab, (rows,)), 3 * torch.randn(rows, vocab)
    targets = make_targets(rows, vocab, k)
    options = {"top_k": {"k": k}, "naive_fix": {"k": k}, "ghost_token": {"k": k}}

    def form(name: str, stored: bool = False) -> Loss:
        objective = make_objective(name, **({} if stored else options.get(name, {})))
        return lambda z: objective(
            z, targets, labels=labels, teacher_logits=None if stored else teacher
        )

    losses: dict[str, Loss] = {
        "F.cross_entropy": lambda z: F.cross_entropy(z, labels),
        "cross_entropy": form("cross_entropy"),
        "sampled_kd": form("sampled_kd"),
        "naive_fix, stored tokens": form("naive_fix", stored=True),
        "ghost_token, stored tokens": form("ghost_token", stored=True),
        "smoothed_residual, stored tokens": form("smoothed_residual", stored=True),
        "label_smoothing": form("label_smoothing"),
        "label smoothing, F.cross_entropy": lambda z: F.cross_entropy(
            z, labels, label_smoothing=0.1
        ),
        "full_kd": form("full_kd"),
        "full KD, softmax + F.cross_entropy": lambda z: F.cross_entropy(z, teacher.softmax(-1)),
        "full KD, F.kl_div": lambda z: F.kl_div(
            z.log_softmax(-1), teacher.softmax(-1), reduction="batchmean"
        ),
        "reverse_kd": form("reverse_kd"),
        "reverse KD, F.kl_div": lambda z: eager_reverse_kd(z, teacher),
        "top_k of live logits": form("top_k"),
        "ghost_token of live logits": form("ghost_token"),
        "ghost token, eager": lambda z: eager_ghost_token(z, teacher, k),
    }
    return {name: Form(loss) for name, loss in losses.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--k", type=int, default=12, help="ids per row")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logits = torch.randn(options.rows, options.vocab, requires_grad=True)
    made = forms(options.vocab, options.rows, options.k)
    group = Group("objectives", made, logits, counts_gradients=True)
    results = measure(group, options.vocab, options.repeats)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        print(text(results))


if __name__ == "__main__":
    main()
