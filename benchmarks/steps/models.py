"""A student and a teacher of SmolLM2's shape, with random weights: only their time counts."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 49152
TEACHER_LAYERS = 30
STUDENT_LAYERS = 4


def smollm2(layers: int, seed: int) -> LlamaForCausalLM:
    """SmolLM2-135M with another number of layers: 134.5 M parameters with 30, 42.5 M with 4."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return LlamaForCausalLM(config)
