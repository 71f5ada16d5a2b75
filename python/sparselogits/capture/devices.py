"""On which device rows are sampled, and in which order with the teacher's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

#: Draws need 64-bit integers and importance weights float64; Apple's GPUs have no float64.
SAMPLES_IN_CPU_MEMORY = ("mps",)


def for_sampling(logits: torch.Tensor) -> Any:
    """The rows as `sparselogits.sample` takes them, without a copy wherever that is possible.

    Returns:
        A NumPy view of rows in CPU memory; a NumPy copy of rows on a device that cannot sample;
        other rows as they are: they are sampled where they lie, and only draws are transferred.
    """
    if logits.device.type in SAMPLES_IN_CPU_MEMORY:
        return logits.cpu().numpy()
    return logits.numpy() if logits.device.type == "cpu" else logits


def sampling_thread(device: torch.device) -> AbstractContextManager[None]:
    """The state of a thread that samples what the calling thread computes on `device`.

    On CUDA it works on the caller's own stream. So its kernels come after those that they need
    and the memory of logits is reused in the right order, without events; the teacher's next
    kernels queue up behind them while this thread waits for draws.
    """
    return _on_stream(torch.cuda.current_stream(device) if device.type == "cuda" else None)


@contextmanager
def _on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    with torch.inference_mode(), torch.cuda.stream(stream):
        yield
