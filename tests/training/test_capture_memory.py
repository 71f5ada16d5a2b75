"""No tensor of a capture grows with vocabulary times length; those of a bare forward do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from capture_models import gemma2, llama
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sparselogits as sl

VOCABULARY, CHUNK, BATCH = 3001, 50, 2


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def largest(run: Any) -> int:
    with LargestTensor() as seen:
        run()
    return seen.elements


@pytest.mark.parametrize("family", [llama, gemma2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_tensor_is_a_chunk_of_logits(
    family: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    model: nn.Module = family(vocab_size=VOCABULARY, max_position_embeddings=256).to(dtype)
    rng = np.random.default_rng(0)
    for length in (32, 64, 128):
        windows = rng.integers(0, VOCABULARY, (BATCH, length))

        def capture(windows: Any = windows, length: int = length) -> None:
            path = tmp_path / str(length)
            sl.capture(model, windows, path, batch_size=BATCH, chunk_rows=CHUNK, progress=False)

        @torch.inference_mode()
        def forward(windows: Any = windows) -> None:
            model(input_ids=torch.from_numpy(windows), use_cache=False)

        assert largest(capture) == CHUNK * VOCABULARY
        assert largest(forward) == BATCH * length * VOCABULARY
