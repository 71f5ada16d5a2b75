"""Small corpora in every format, and a tokenizer whose ids can be told by heart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["a", "cat", "sat", "on", "the", "mat", "and", "saw", "it", "was", "red"]
UNKNOWN, BOS, EOS = 0, 1, 2
FIRST_WORD = 3
VOCAB = FIRST_WORD + len(WORDS)
TEXTS = ["a cat sat on the mat", "", "and saw", "it was red the cat saw a cat", "mat"]


def ids_of(text: str) -> list[int]:
    """What the tokenizer makes of a text."""
    return [FIRST_WORD + WORDS.index(word) for word in text.split()]


DOCUMENTS = [ids_of(text) for text in TEXTS]


def word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<bos>", "<eos>", *WORDS]
    vocabulary = {name: index for index, name in enumerate(names)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def teacher(max_length: int = 16) -> Any:
    """A tiny causal LM over the vocabulary, with random weights that are always the same."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(2)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=max_length,
    )
    return LlamaForCausalLM(config).eval()


@cache
def byte_tokenizer() -> Any:
    """A byte-level BPE of the library `tokenizers`, with merges, trained here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    bytewise.train_from_iterator(TEXTS * 3, trainer)
    return bytewise


def stream(documents: Sequence[Sequence[int]]) -> np.ndarray:
    """Documents end to end."""
    return np.array([token for document in documents for token in document], np.int64)


def write_jsonl(path: Path, texts: Sequence[str], field: str = "text") -> Path:
    path.write_text("".join(json.dumps({"id": 1, field: text}) + "\n" for text in texts))
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def as_lists(source: Any) -> list[list[int]]:
    """The documents of a token source."""
    return [source.document(i).tolist() for i in range(source.num_documents)]
