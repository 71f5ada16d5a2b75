"""A tiny student and tiny caches for the tests of trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import sparselogits as sl

VOCABULARY = 53
ROUNDS = 8


def student(family: str = "Llama", seed: int = 0, **changes: Any) -> nn.Module:
    """A randomly initialised causal language model of two layers."""
    import torch
    import transformers

    fields: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
    torch.manual_seed(seed)
    config = getattr(transformers, f"{family}Config")(**fields)
    return getattr(transformers, f"{family}ForCausalLM")(config)


def write_cache(path: Path, lengths: list[int], *, store_tokens: bool = True) -> sl.Cache:
    """Sequence i has `lengths[i]` positions and the sequence_id 100 + 7 i.

    The teacher puts most of its mass on few ids, so that there is something to learn. Every sixth
    position has no entries.
    """
    rng = np.random.default_rng(0)
    config = sl.CacheConfig(vocab_size=VOCABULARY, rounds=ROUNDS, store_tokens=store_tokens)
    with sl.CacheWriter(path, config) as writer:
        for sequence, length in enumerate(lengths):
            offsets, ids, counts = [0], [], []
            for position in range(length):
                if (sequence + position) % 6 != 5:
                    chosen = np.sort(rng.choice(VOCABULARY // 4, 3, replace=False))
                    ids += chosen.tolist()
                    counts += [ROUNDS - 3, 2, 1]
                offsets.append(len(ids))
            writer.append(
                tokens_of(sequence, length),
                np.array(offsets),
                np.array(ids, np.int32),
                np.array(counts, np.int32),
                sequence_id=sequence_id(sequence),
            )
    return sl.open(path)


def sequence_id(sequence: int) -> int:
    return 100 + 7 * sequence


def tokens_of(sequence: int, length: int) -> np.ndarray:
    """(length,) input tokens of a sequence."""
    return np.random.default_rng([1, sequence]).integers(0, VOCABULARY, length).astype(np.int32)


def rows_of(cache: sl.Cache) -> list[dict[str, Any]]:
    """The cache's sequences as rows of somebody's own dataset."""
    lengths = cache.sequence_lengths.tolist()
    return [
        {"input_ids": tokens_of(i, n).tolist(), "sequence_id": sequence_id(i)}
        for i, n in enumerate(lengths)
    ]
