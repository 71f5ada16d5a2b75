"""Distil a student from a cache in a plain PyTorch loop, and go on after an interruption.

python examples/plain_loop.py --output run                       # a tiny cache and student
python examples/plain_loop.py --output run --cache my-cache --student my-model
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tiny_run import add_arguments, cache_of, student_of
from torch.utils.data import DataLoader

from sparselogits.torch import SparseLogitDataset, fused_linear_sparse_kd_loss


def main() -> None:
    args = add_arguments(argparse.ArgumentParser(description=__doc__)).parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dataset = SparseLogitDataset(cache_of(args), batch_size=args.batch_size, seed=args.seed)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=args.workers, pin_memory=device == "cuda"
    )
    student = student_of(args, dataset.cache).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=args.learning_rate)

    saved, step = Path(args.output) / "state.pt", 0
    if saved.exists():
        state = torch.load(saved)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        dataset.load_state_dict(state["dataset"])
        step = state["step"]

    while step < args.steps:
        for used, batch in enumerate(loader, start=1):
            batch = batch.to(device, non_blocking=True)
            hidden = student.model(input_ids=batch.input_ids).last_hidden_state
            loss = fused_linear_sparse_kd_loss(hidden, student.lm_head.weight, batch.targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            print(f"step {step}: loss {loss.item():.4f} nats a position")
            if step % args.save_every == 0 or step == args.steps:
                state = {"student": student.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**state, "dataset": dataset.state_after(used), "step": step}, saved)
            if step == args.steps:
                return
        dataset.set_epoch(dataset.epoch + 1)


if __name__ == "__main__":
    main()
