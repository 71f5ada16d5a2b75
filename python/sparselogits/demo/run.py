"""`run`: teacher → caches → inspection → gradient angles → two students → tables and a picture."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from sparselogits.demo.pass_over_teacher import PassResult
    from sparselogits.demo.student import Student

_NEEDED = ("torch", "transformers", "safetensors", "gguf", "matplotlib")
_LENGTH = 128
_HELD_OUT_WINDOWS = 8  # with dense teacher rows, 200 MB: for angles, KL and held-out loss
_BATCH_WINDOWS = 4
_LEARNING_RATE = 2e-3
_EVALUATIONS = 10

Log = Callable[[str], None]


def run(
    output: str | os.PathLike[str] = "demo-output",
    positions: int = 4096,
    steps: int = 300,
    seed: int = 0,
) -> dict[str, Any]:
    """Shows the whole path on a real teacher, SmolLM2-135M-Instruct, on CPU.

    Progress goes to stderr. A second run reuses the converted teacher and the caches.

    Args:
        output: Directory of the caches, `demo.png` and `results.json`.
        positions: How many positions the students train on; a multiple of 128.
        steps: Training steps of each student.
        seed: Of the choice of text, the draws, the students' weights and the order of batches.

    Returns:
        The results: teacher, caches, angles, curves, sizes, seconds, picture. JSON-ready;
        `report` makes tables of them.

    Raises:
        InvalidArgumentError: A package of the extra `demo` is missing, or an argument is wrong.
        CacheIOError: The download failed, or a directory cannot be written.
    """
    return measure(Path(output), positions=positions, steps=steps, seed=seed, log=_to_stderr())


def measure(output: Path, *, positions: int, steps: int, seed: int, log: Log) -> dict[str, Any]:
    """`run` with progress to `log`."""
    _check_packages()
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidArgumentError(f"steps must be a positive integer, got {steps!r}")
    import torch

    from sparselogits.demo.figure import save_figure
    from sparselogits.demo.sizes import cache_size, full_logits_bytes

    clock = _Clock()
    with _all_cores():
        train, fresh, corpus, teacher = _capture(output, positions, seed, log, clock)
        for cache in (*train.caches.values(), *fresh.caches.values()):
            cache.verify()
        log(f"verified {len(train.caches) + len(fresh.caches)} caches, every byte")
        caches = {
            name: {"path": cache.path, "reused": train.reused, **asdict(cache_size(cache))}
            for name, cache in train.caches.items()
        }
        clock.lap("inspect")
        assert fresh.logits is not None
        held_out = torch.from_numpy(corpus.held_out.astype(np.int64))
        student, curves = _train(train, held_out, fresh.logits, steps, seed, log)
        clock.lap("train")
        angles = _angles(student, held_out, fresh, fresh.logits)
        clock.lap("angles")
    results = {
        "teacher": teacher,
        "positions": positions,
        "steps": steps,
        "full_logits_bytes_per_position": full_logits_bytes(teacher["vocab_size"]),
        "caches": caches,
        "angles": angles,
        "angle_positions": _HELD_OUT_WINDOWS * _LENGTH,
        "curves": curves,
        "picture": str(output / "demo.png"),
    }
    save_figure(results, output / "demo.png")
    clock.lap("picture")
    results["seconds"] = {**clock.laps, "total": sum(clock.laps.values())}
    (output / "results.json").write_text(json.dumps(results, indent=2))
    return results


def _capture(output: Path, positions: int, seed: int, log: Log, clock: _Clock) -> tuple[Any, ...]:
    from sparselogits.demo.pass_over_teacher import run_teacher
    from sparselogits.demo.teacher import load_teacher, prepare_teacher
    from sparselogits.demo.text import make_corpus

    directory = prepare_teacher(log)
    model, tokenizer = load_teacher(directory)
    clock.lap("teacher")
    corpus = make_corpus(
        tokenizer,
        positions=positions,
        held_out_windows=_HELD_OUT_WINDOWS,
        length=_LENGTH,
        seed=seed,
    )
    log(f"text: {positions:,} positions of pydoc_data.topics to train on")
    train = run_teacher(model, tokenizer, corpus.train, output / "train", seed=seed, log=log)
    if train.reused:
        log(f"capture: reusing the caches in {output / 'train'}")
    fresh = run_teacher(
        model,
        tokenizer,
        corpus.held_out,
        output / "held-out",
        seed=seed,
        keep_windows=_HELD_OUT_WINDOWS,
        log=log,
    )
    clock.lap("capture")
    assert fresh.logits is not None
    teacher = {
        "name": "SmolLM2-135M-Instruct",
        "path": str(directory),
        "vocab_size": len(tokenizer),
        "held_out_loss": _label_loss(fresh.logits, corpus.held_out),
    }
    return train, fresh, corpus, teacher


def _train(
    train: PassResult, held_out: Tensor, teacher_rows: Tensor, steps: int, seed: int, log: Log
) -> tuple[Student, dict[str, Any]]:
    """The student that learned from the cache, and both curves."""
    from sparselogits.demo import train as training
    from sparselogits.demo.student import new_student
    from sparselogits.torch import SparseLogitDataset

    cache = train.caches["systematic"]
    log_probs = teacher_rows.log_softmax(-1).view(*held_out.shape, -1)
    targets = training.HeldOut(held_out, log_probs)
    curves, students = {}, {}
    losses = {"rs_kd": training.distillation_loss, "cross_entropy": training.label_loss}
    for name, loss in losses.items():
        students[name] = new_student(cache.config.vocab_size, _LENGTH, seed)
        batch_size = min(_BATCH_WINDOWS, len(cache))
        curves[name] = training.train(
            students[name],
            SparseLogitDataset(cache, batch_size=batch_size, seed=seed),
            loss,
            targets,
            steps=steps,
            evaluations=min(_EVALUATIONS, steps),
            learning_rate=_LEARNING_RATE,
            log=lambda line, name=name: log(f"{name}: {line}"),  # type: ignore[misc]
        )
    return students["rs_kd"], {name: asdict(curve) for name, curve in curves.items()}


def _angles(student: Student, input_ids: Tensor, fresh: PassResult, logits: Tensor) -> Any:
    from sparselogits.demo import angles as measures
    from sparselogits.demo.pass_over_teacher import targets_of
    from sparselogits.torch.meters import compare_gradients
    from sparselogits.torch.objectives import top_k_targets

    full = measures.full_gradient(student, input_ids, logits)
    targets = {name: targets_of(cache, len(input_ids)) for name, cache in fresh.caches.items()}
    targets |= {f"top_{k}": top_k_targets(logits, k, renormalise=True) for k in (12, 50)}
    gradients = {
        name: measures.sparse_gradient(student, input_ids, target)
        for name, target in targets.items()
    }
    return {name: asdict(compare_gradients(g, full)) for name, g in gradients.items()}


def _label_loss(logits: Tensor, windows: Any) -> float:
    """Cross-entropy of the teacher itself, nats a token."""
    import torch
    from torch.nn import functional

    ids = torch.from_numpy(windows.astype(np.int64))
    rows = logits.view(*ids.shape, -1)[:, :-1].flatten(0, 1)
    return float(functional.cross_entropy(rows, ids[:, 1:].flatten()))


class _Clock:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _to_stderr() -> Log:
    start = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    return log


@contextmanager
def _all_cores() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_packages() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InvalidArgumentError(
            f'the demo needs {", ".join(missing)}: pip install "sparselogits[demo]"'
        )
