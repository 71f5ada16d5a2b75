"""Time and memory of one step: forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from .forms import Forms, Loss

# A form that is this much slower than the reference is timed twice and no more.
_SLOW = 3.0


@dataclass(frozen=True)
class Result:
    """One line of the table; ratios are to the first line of its group."""

    group: str
    form: str
    rows: int
    vocab: int
    repeats: int
    seconds: float
    time_ratio: float
    time_limit: float | None
    extra_bytes: int
    memory_ratio: float
    memory_limit: float | None


@dataclass(frozen=True)
class Group:
    """Forms that are compared, and the tensors of their steps.

    Attributes:
        leaf: What the losses take; each step gets a fresh copy, since a form may overwrite it.
        others: Further leaves that get gradients.
        accumulate: Add to the `.grad` of `others`, which exist, instead of returning gradients.
        counts_gradients: Whether the gradients that a step returns count as its memory. Those of
            given logits do, because a form may do without.
    """

    name: str
    forms: Forms
    leaf: Tensor
    others: Sequence[Tensor] = ()
    accumulate: bool = False
    counts_gradients: bool = False


def step(group: Group, loss: Loss, x: Tensor) -> list[Tensor]:
    """One forward and backward; the gradients that it returned."""
    if not group.accumulate:
        return list(torch.autograd.grad(loss(x), [x, *group.others]))
    loss(x).backward()
    assert x.grad is not None
    return [x.grad]


def peak_bytes(run: Callable[[], Sequence[Tensor]], counts_gradients: bool) -> int:
    """The most that `run` holds at once, by the CPU profiler; it returns its gradients."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        gradients = run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak - (0 if counts_gradients else sum(gradient.nbytes for gradient in gradients))


def measure(group: Group, vocab: int, repeats: int) -> list[Result]:
    """Times the forms in turns and takes the best of each."""
    first = next(iter(group.forms))
    # This warms up as well.
    extra = {name: _peak(group, form.loss) for name, form in group.forms.items()}
    times = {name: [_seconds(group, form.loss)] for name, form in group.forms.items()}
    limit = _SLOW * times[first][0]
    for turn in range(1, repeats):
        for name, form in group.forms.items():
            if turn == 1 or min(times[name]) <= limit:
                times[name].append(_seconds(group, form.loss))
    return [
        Result(
            group=group.name,
            form=name,
            rows=group.leaf.shape[0],
            vocab=vocab,
            repeats=len(times[name]),
            seconds=min(times[name]),
            time_ratio=min(times[name]) / min(times[first]),
            time_limit=form.time_limit,
            extra_bytes=extra[name],
            memory_ratio=extra[name] / extra[first],
            memory_limit=form.memory_limit,
        )
        for name, form in group.forms.items()
    ]


def _input(group: Group) -> Tensor:
    if group.accumulate:
        return group.leaf.detach().clone().requires_grad_()
    return group.leaf.clone()


def _seconds(group: Group, loss: Loss) -> float:
    x = _input(group)
    start = time.perf_counter()
    step(group, loss, x)
    return time.perf_counter() - start


def _peak(group: Group, loss: Loss) -> int:
    x = _input(group)
    return peak_bytes(lambda: step(group, loss, x), group.counts_gradients)
