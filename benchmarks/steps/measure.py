"""Times and memory of steps; each function runs in a process of its own."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any

import torch

from steps.forms import MEASURED, RARE, Steps

_RARE_EVERY = 5
_MEMORY_STEPS = 3  # the optimizer's state appears in the first


def times(cache: Path, options: dict[str, Any]) -> dict[str, list[list[float]]]:
    """(CPU seconds of all threads, seconds) of each step of each form, in rounds.

    A round runs each form once, in a random order, so that noise and what one form leaves in the
    caches hit all alike. The rare forms join every fifth round.
    """
    torch.set_num_threads(options["threads"])
    steps = Steps(cache, options["batch_size"], MEASURED)
    for form in MEASURED:
        steps.run(form)
    order = random.Random(0)
    found: dict[str, list[list[float]]] = {form: [] for form in MEASURED}
    for number in range(options["rounds"]):
        forms = [form for form in MEASURED if form not in RARE or number % _RARE_EVERY == 0]
        order.shuffle(forms)
        for form in forms:
            cpu, wall = time.process_time(), time.perf_counter()
            steps.run(form)
            found[form].append([time.process_time() - cpu, time.perf_counter() - wall])
    return found


def peak_mib(cache: Path, options: dict[str, Any], form: str) -> float:
    """The most memory that a process that runs only this form ever has, in MiB."""
    torch.set_num_threads(options["threads"])
    steps = Steps(cache, options["batch_size"], (form,))
    for _ in range(_MEMORY_STEPS):
        steps.run(form)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
