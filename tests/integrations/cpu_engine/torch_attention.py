"""The C++ operators that vLLM's CPU backend calls and that a CUDA wheel does not hold, in torch.

Slow and obvious. Each query sees only the keys up to its own position, so a NaN stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("_C", "FRAGMENT")


def operator(schema: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        LIBRARY.define(schema)
        LIBRARY.impl(schema.partition("(")[0], function, "CompositeExplicitAutograd")
        return function

    return register


@operator("init_cpu_memory_env(int[] nodes) -> ()")
def init_cpu_memory_env(nodes: list[int]) -> None:
    pass


@operator(
    "get_scheduler_metadata(int num_reqs, int num_heads, int num_kv_heads, int head_dim, "
    "Tensor seq_lens, ScalarType dtype, Tensor query_start_loc, bool causal, int window, str isa, "
    "bool split, Tensor? dynamic_causal, str kv_cache_dtype) -> Tensor"
)
def get_scheduler_metadata(*_: Any) -> torch.Tensor:
    return torch.zeros(1)


@operator(
    "cpu_attn_reshape_and_cache(Tensor key, Tensor value, Tensor(a!) key_cache, "
    "Tensor(b!) value_cache, Tensor slots, str isa, float k_scale, float v_scale, "
    "str kv_cache_dtype) -> ()"
)
def store(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    *_: Any,
) -> None:
    """Caches are (blocks, heads, tokens of a block, dimensions)."""
    size = key_cache.shape[2]
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            key_cache[slot // size, :, slot % size] = key[token]
            value_cache[slot // size, :, slot % size] = value[token]


@operator(
    "cpu_attention_with_kv_cache(Tensor query, Tensor key_cache, Tensor value_cache, "
    "Tensor(a!) output, Tensor query_start_loc, Tensor seq_lens, float scale, bool causal, "
    "Tensor? alibi_slopes, int window, Tensor block_table, float softcap, Tensor metadata, "
    "Tensor? sinks, Tensor? dynamic_causal, float k_scale, float v_scale, "
    "str kv_cache_dtype) -> ()"
)
def attend(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    output: torch.Tensor,
    query_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
    causal: bool,
    alibi_slopes: torch.Tensor | None,
    window: int,
    block_table: torch.Tensor,
    *_: Any,
) -> None:
    assert causal
    assert alibi_slopes is None
    size = key_cache.shape[2]
    for request, length in enumerate(seq_lens.tolist()):
        first, last = query_start_loc[request : request + 2].tolist()
        positions = torch.arange(length)
        blocks = block_table[request][positions // size].long()
        copies = query.shape[1] // key_cache.shape[1]
        keys, values = (
            cache[blocks, :, positions % size].float().repeat_interleave(copies, 1)
            for cache in (key_cache, value_cache)
        )
        for row in range(first, last):
            seen = length - (last - row) + 1
            scores = torch.einsum("hd,khd->hk", query[row].float(), keys[:seen]) * scale
            result = torch.einsum("hk,khd->hd", scores.softmax(-1), values[:seen])
            output[row] = result.reshape(output[row].shape).to(output.dtype)
