"""Real English text that every Python carries: the language reference of `pydoc_data.topics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError

Windows = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Corpus:
    """Token windows of one length: some to capture and train on, others never trained on.

    Attributes:
        train: (N, S) int32.
        held_out: (M, S) int32.
    """

    train: Windows
    held_out: Windows


def python_topics() -> str:
    """All topics as one text, each paragraph once.

    Topics repeat long passages of each other; a repeat in the held-out windows would reward a
    student for learning by heart.
    """
    from pydoc_data.topics import topics

    paragraphs = [p.strip("\n") for name in sorted(topics) for p in topics[name].split("\n\n")]
    return "\n\n".join(dict.fromkeys(p for p in paragraphs if p.strip()))


def make_corpus(
    tokenizer: Any, *, positions: int, held_out_windows: int, length: int, seed: int
) -> Corpus:
    """Windows of `length` tokens in a random order, `positions` tokens of them for training.

    Raises:
        InvalidArgumentError: `positions` is not a positive multiple of `length`, or the text of
            this Python is too short for what was asked.
    """
    if positions < length or positions % length:
        raise InvalidArgumentError(
            f"positions must be a positive multiple of {length}, got {positions}"
        )
    tokens = np.array(tokenizer(python_topics(), add_special_tokens=False)["input_ids"], np.int32)
    count = len(tokens) // length
    wanted = positions // length + held_out_windows
    if count < wanted:
        raise InvalidArgumentError(
            f"positions is {positions}, but this Python's topics hold only "
            f"{(count - held_out_windows) * length} beside the held-out windows"
        )
    windows = tokens[: count * length].reshape(count, length)
    windows = windows[np.random.default_rng(seed).permutation(count)[:wanted]]
    return Corpus(train=windows[held_out_windows:], held_out=windows[:held_out_windows])
