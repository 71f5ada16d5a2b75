"""What a capture costs beside the forward that the paper's teacher pass is: docs/capture.md.

The baseline is the teacher's own forward with all its logits, in `torch.inference_mode`, on the
same batches. Both run in turn, batch by batch: the iterator that feeds the capture runs the bare
forward on a batch before it hands the batch out. So a machine that is busy slows both. Start-up
(self-check, facts of teacher and tokenizer, creation of the cache) is told apart: it does not grow
with the windows. With overlap the last chunk of a batch is sampled during the next bare forward,
which shifts about 1 % from one figure to the other. The teacher is SmolLM2-135M-Instruct in float32
(extra `demo`).

    python benchmarks/bench_capture.py                      # 2,048 positions: a minute
    python benchmarks/bench_capture.py --positions 50000 --only overlap    # half an hour
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sparselogits as sl
from sparselogits.demo.teacher import load_teacher, prepare_teacher
from sparselogits.demo.text import make_corpus


class Clock:
    """Seconds on the wall and of the process's CPUs, from its creation or the last `lap`."""

    def __init__(self) -> None:
        self._last = self._now()

    def lap(self) -> np.ndarray:
        """(2,) seconds since the last lap: wall, CPU."""
        now = self._now()
        spent, self._last = now - self._last, now
        return spent

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])


class Alternating:
    """The windows of a capture, each batch after the bare forward of the same batch."""

    def __init__(self, model: Any, windows: np.ndarray, batch_size: int) -> None:
        self._model = model
        self._windows = windows
        self._batch_size = batch_size
        self.clock = Clock()
        self.startup: np.ndarray | None = None
        self.bare = np.zeros(2)
        self.captured = np.zeros(2)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._windows), self._batch_size):
            if self.startup is None:
                self.startup = self.clock.lap()
            else:
                self.captured += self.clock.lap()
            batch = self._windows[start : start + self._batch_size]
            with torch.inference_mode():
                tokens = torch.from_numpy(batch.astype(np.int64))
                logits = self._model(input_ids=tokens, use_cache=False).logits
            del logits
            self.bare += self.clock.lap()
            yield from batch


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--positions", type=int, default=2048, help="rounded up to whole windows")
    parser.add_argument("--length", type=int, default=256, help="tokens a window (default: 256)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--sampler", default="multinomial")
    parser.add_argument("--codec", default="packed")
    parser.add_argument("--threads", type=int, help="torch's threads (default: its own choice)")
    parser.add_argument("--only", choices=("overlap", "in turn"), help="default: both")
    parser.add_argument("--out", type=Path, help="keep the caches here (default: throw them away)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model, tokenizer = load_teacher(prepare_teacher())
    positions = -(-args.positions // args.length) * args.length
    windows = make_corpus(
        tokenizer, positions=positions, held_out_windows=0, length=args.length, seed=5
    ).train
    print(
        f"SmolLM2-135M-Instruct, float32, {torch.get_num_threads()} threads, {positions:,} "
        f"positions in windows of {args.length}, batches of {args.batch_size}, {args.sampler} "
        f"N={args.rounds}, {args.codec}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for kind in [args.only] if args.only else ["overlap", "in turn"]:
            out = (args.out or Path(scratch)) / kind.replace(" ", "-")
            measure(model, tokenizer, windows, out, kind, args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:,.0f} MiB")


def measure(model: Any, tokenizer: Any, windows: Any, out: Path, kind: str, args: Any) -> None:
    source = Alternating(model, windows, args.batch_size)
    cache = sl.capture(
        model,
        source,
        out,
        rounds=args.rounds,
        sampler=args.sampler,
        codec=args.codec,
        tokenizer=tokenizer,
        batch_size=args.batch_size,
        overlap=kind == "overlap",
        progress=False,
    )
    source.captured += source.clock.lap()
    assert source.startup is not None
    rows = {"bare forward with logits": source.bare, f"capture, {kind}": source.captured}
    for name, (wall, cpu) in rows.items():
        more = 100 * (np.array([wall, cpu]) / source.bare - 1)
        print(
            f"{name:<26} {wall:8.1f} s {windows.size / wall:7.1f} positions/s {more[0]:+6.1f} %"
            f"   CPU {cpu:8.1f} s {more[1]:+6.1f} %"
        )
    print(
        f"start-up {source.startup[0]:.1f} s; {cache.nbytes / cache.num_positions:.1f} bytes a "
        "position",
        flush=True,
    )


if __name__ == "__main__":
    main()
