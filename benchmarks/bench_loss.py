"""Time and memory of the sparse losses, forward and backward, as ratios to cross-entropy.

Every form is timed in the same run, in turns with the reference of its group: `F.cross_entropy` for
the losses on given logits, `F.linear` + `F.cross_entropy` for the head with a loss. Each step gets
a fresh copy of its first input, made outside the measurement, since a form may overwrite it.
Memory is the most that a step holds at once beyond its inputs, by the CPU profiler. The gradient of
given logits counts, because a form may do without; gradients of hidden states and weight do not.
The limits beside some ratios are those that the losses promise.

    python benchmarks/bench_loss.py [--vocab 49152 131072] [--rows 2048] [--hidden 576] [--json]
        [--markdown docs/results/loss.md]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from losses.forms import accumulating_forms, head_forms, logit_forms, make_targets
from losses.measure import Group, Result, measure
from losses.table import markdown, text


def groups(vocab: int, rows: int, hidden_size: int, entries: int) -> Iterator[Group]:
    """The groups of one size, each made when the one before is done."""
    torch.manual_seed(0)
    labels = torch.randint(vocab, (rows,))
    targets = make_targets(rows, vocab, entries)
    logits = torch.randn(rows, vocab, requires_grad=True)
    forms = logit_forms(labels, targets, torch.randn(rows, vocab))
    yield Group("logits", forms, logits, counts_gradients=True)
    del logits, forms
    hidden = torch.randn(rows, hidden_size, requires_grad=True)
    weight = torch.empty(vocab, hidden_size).normal_(std=0.02).requires_grad_()
    yield Group("head", head_forms(weight, labels, targets), hidden, [weight])
    weight.grad = torch.zeros_like(weight)
    forms = accumulating_forms(weight, labels, targets)
    yield Group("accumulating", forms, hidden, [weight], accumulate=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, nargs="+", default=[49152, 131072])
    parser.add_argument("--rows", type=int, nargs="+", default=[2048])
    parser.add_argument("--hidden", type=int, default=576, help="width of the student")
    parser.add_argument("--entries", type=int, default=12, help="ids per row")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--groups", nargs="+", default=["logits", "head", "accumulating"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: list[Result] = []
    for vocab in options.vocab:
        for rows in options.rows:
            for group in groups(vocab, rows, options.hidden, options.entries):
                if group.name in options.groups:
                    results += measure(group, vocab, options.repeats)
                    print(f"V={vocab} rows={rows}: {group.name} done", file=sys.stderr)
    if options.markdown:
        sizes = f"H = {options.hidden}, {options.entries} ids a row"
        command = f"python {shlex.join(sys.argv)}"
        options.markdown.write_text(markdown(results, command, sizes))
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        print(text(results))


if __name__ == "__main__":
    main()
