"""A small text, tokenised, packed into windows and written to a cache: what a teacher read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

import sparselogits as sl

LENGTH = 24
TEXT = "the cat sat on a mat and saw that it was red so he ran far away from all of us"
WORDS = TEXT.split()
PAD, BOS = 0, 1


def words_as_tokens(text: str) -> list[int]:
    """One tokenizer: a token a word."""
    return [10 + WORDS.index(word) for word in text.split()]


def letters_as_tokens(text: str) -> list[int]:
    """Another one: a token a letter."""
    return [100 + ord(letter) - ord("a") for letter in text.replace(" ", "")]


def documents() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(20, 60))) for _ in range(14)]


def stream(
    texts: Iterable[str], tokenise: Callable[[str], list[int]] = words_as_tokens
) -> np.ndarray:
    """Documents end to end, each behind a BOS."""
    return np.array([token for text in texts for token in (BOS, *tokenise(text))])


def packed(tokens: np.ndarray, length: int = LENGTH) -> list[np.ndarray]:
    """A stream cut into windows, without the rest."""
    return [tokens[i : i + length] for i in range(0, len(tokens) - length + 1, length)]


TEACHER = packed(stream(documents()))
SECOND = TEACHER[0][1]  # the token behind the first BOS
VOCAB = 200


def write(path: Path, windows: list[np.ndarray], store_tokens: bool) -> sl.Cache:
    """A cache of these windows; sequence i has the id 1000 + i."""
    config = sl.CacheConfig(vocab_size=VOCAB, rounds=2, store_tokens=store_tokens)
    rng = np.random.default_rng(1)
    with sl.CacheWriter(path, config) as writer:
        for i, window in enumerate(windows):
            offsets = np.arange(len(window) + 1)
            ids = rng.integers(0, VOCAB, len(window))
            writer.append(window, offsets, ids, np.full(len(window), 2), sequence_id=1000 + i)
    return sl.open(path)
