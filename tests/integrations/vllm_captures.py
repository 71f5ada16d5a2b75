"""Captures in the stand-in engine, and what their caches must hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from toy_model import VOCABULARY, ToyModel

import sparselogits as sl
from sparselogits.integrations.vllm import capture_with_vllm

RNG = np.random.default_rng(2)
WINDOWS = [RNG.integers(0, VOCABULARY, size) for size in (5, 0, 1, 63, 12)]
IDS = [7, 2**63 + 1, 0, 4, 2**64 - 1]
OPTIONS: dict[str, Any] = {"rounds": 8, "sampler": "systematic", "seed": 11}


def capture(vllm: ModuleType, path: Path, windows: Any = WINDOWS, **options: Any) -> sl.Cache:
    engine = vllm.LLM(options.pop("model", None) or ToyModel(), **options.pop("engine", {}))
    values = {"sequence_ids": IDS, "vocab_size": VOCABULARY, "progress": False}
    return capture_with_vllm(engine, windows, path, **(OPTIONS | values | options))


def assert_holds(cache: sl.Cache, tokens: np.ndarray, sequence_id: int, **options: Any) -> None:
    """The sequence is one call of the library on the logits of the whole window."""
    found = cache.read(cache.sequence_ids.tolist().index(sequence_id))
    assert found.input_ids is not None
    assert found.input_ids.tolist() == tokens.tolist()
    if not len(tokens):
        assert len(found.offsets) == 1
        return
    keys = np.empty((len(tokens), 2), np.uint64)
    keys[:, 0] = sequence_id
    keys[:, 1] = np.arange(len(tokens))
    logits = ToyModel().logits(tokens.tolist())
    wanted = sl.sample(logits, position_keys=keys, **(OPTIONS | options))
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(found.weights, wanted.weights)
