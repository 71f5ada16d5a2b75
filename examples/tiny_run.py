"""What the examples share: their arguments, and a tiny cache and student if none are given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import sparselogits as sl

_VOCABULARY = 512
_LENGTH = 64


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of all examples."""
    parser.add_argument("--output", required=True, help="directory for what the run makes")
    parser.add_argument("--cache", help="directory of a cache; a tiny one is made without")
    parser.add_argument("--student", help="model directory or hub name; else a tiny Llama")
    parser.add_argument("--batch-size", type=int, default=4, help="sequences per step")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--save-every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--workers", type=int, default=0, help="processes that read the cache")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def cache_of(args: argparse.Namespace) -> sl.Cache:
    """The cache that was asked for, or a tiny one that a random teacher is sampled into."""
    if args.cache:
        return sl.open(args.cache)
    path = Path(args.output) / "cache"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sl.capture(_llama(seed=1), windows(), path, rounds=24, sampler="systematic")
    return sl.open(path)


def windows() -> np.ndarray:
    """(32, 64) token ids: row i of them is the tiny cache's sequence with sequence_id i."""
    return np.random.default_rng(0).integers(3, _VOCABULARY, (32, _LENGTH))


def student_of(args: argparse.Namespace, cache: sl.Cache) -> Any:
    """The model that was asked for, or a tiny Llama with the cache's vocabulary."""
    if args.student:
        return AutoModelForCausalLM.from_pretrained(args.student)
    return _llama(seed=args.seed, vocab_size=cache.config.vocab_size)


def _llama(seed: int, vocab_size: int = _VOCABULARY) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)
