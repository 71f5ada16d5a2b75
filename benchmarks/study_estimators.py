"""Error against bytes for every estimator of a teacher's rows, and where each sends a student.

    python benchmarks/study_estimators.py              # SmolLM2-135M: docs/results/estimators.*
    python benchmarks/study_estimators.py --quick      # a tiny random teacher, seconds

On a busy machine, OMP_WAIT_POLICY=PASSIVE keeps torch's threads from spinning.

The rows are those of Python's own documentation (`sparselogits.demo.text`), or of the token windows
in an `.npz` with `tokens` (N, S), as those in `shared/data`. Definitions: `estimators/`. Tables are
put between their marks in `estimators.md`; the text around them stays.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from estimators.angles import mean_angles
from estimators.gradients import perturbed
from estimators.report import Line, plot, write_csv, write_tables
from estimators.table import study_regime
from estimators.teacher_rows import flat, sharp, teacher_logits

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Scale:
    """Attributes:
    windows, length: Rows are windows · length.
    few, many: Positions of a small and of a large batch.
    few_batches: Number of small batches. The large ones take all windows.
    """

    windows: int
    length: int
    few: int
    many: int
    few_batches: int


FULL = Scale(windows=16, length=128, few=64, many=1024, few_batches=4)
QUICK = Scale(windows=4, length=32, few=16, many=64, few_batches=2)


def main(arguments: list[str] | None = None) -> None:
    """Runs the study; `arguments` as on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny random teacher")
    parser.add_argument("--tokens", type=Path, help=".npz with tokens (N, S), for other text")
    parser.add_argument("--no-gradients", action="store_true", help="error and bytes only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the results")
    args = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    try:
        # The tiny teacher gains nothing by threads, which wait for each other on a busy machine.
        torch.set_num_threads(1 if args.quick else threads)
        _run(args)
    finally:
        torch.set_num_threads(threads)


def _run(args: argparse.Namespace) -> None:
    scale = QUICK if args.quick else FULL
    log = _Log()
    teacher, windows = tiny_teacher(scale) if args.quick else real_teacher(scale, args.tokens)
    input_ids, labels = windows[:, :-1], windows[:, 1:].reshape(-1).numpy()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="estimators-") as scratch:
        logits = teacher_logits(teacher, input_ids, Path(scratch) / "logits.npy")
        log(f"{len(logits)} rows of {logits.shape[1]} tokens")
        lines: list[Line] = []
        for regime in (flat(logits, labels), sharp(logits, labels)):
            rows = study_regime(regime, logits.shape[1], log)
            if args.no_gradients:
                continue
            student = perturbed(teacher)
            few = [[w] for w in range(scale.few_batches)]
            per_batch = scale.many // scale.length
            many = [range(start, start + per_batch) for start in range(0, scale.windows, per_batch)]
            angles = [
                mean_angles(rows, regime, student, input_ids, batches, length, log)
                for batches, length in ((few, scale.few), (many, scale.length))
            ]
            lines += [Line(*parts) for parts in zip(rows, *angles, strict=True)]
    if lines:
        write_csv(lines, args.out / "estimators.csv")
        plot(lines, args.out / "estimators.png")
        write_tables(lines, args.out / "estimators.md")
    log("done")


def real_teacher(scale: Scale, tokens: Path | None) -> tuple[Any, torch.Tensor]:
    """SmolLM2-135M-Instruct and (N, S + 1) tokens."""
    from sparselogits.demo.teacher import load_teacher, prepare_teacher
    from sparselogits.demo.text import make_corpus

    teacher, tokenizer = load_teacher(prepare_teacher(_Log()))
    length = scale.length + 1
    if tokens is None:
        corpus = make_corpus(
            tokenizer, positions=scale.windows * length, held_out_windows=0, length=length, seed=0
        )
        windows = corpus.train
    else:
        with np.load(tokens) as arrays:
            whole = arrays["tokens"]
        spread = np.linspace(0, len(whole) - 1, scale.windows).astype(int)
        windows = whole[spread, :length]
    return teacher, torch.from_numpy(windows.astype(np.int64))


def tiny_teacher(scale: Scale) -> tuple[Any, torch.Tensor]:
    """A random Llama whose head is scaled up until its rows are about as flat as a real one's."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=600,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
        teacher = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            teacher.get_output_embeddings().weight *= 15
        windows = torch.randint(0, 600, (scale.windows, scale.length + 1))
    return teacher, windows


class _Log:
    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self._start:4.0f} s] {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
