"""Another tokenizer than the teacher's is refused, and what is different about it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import sparselogits as sl


def tokenizer(tokens: str = "a b c d", **special: str) -> PreTrainedTokenizerFast:
    """A real one, of whole words."""
    vocabulary = {token: index for index, token in enumerate(["<unk>", "</s>", *tokens.split()])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "eos_token": "</s>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def cache_of(path: Path, teachers: Any, vocab_size: int = 10) -> sl.Cache:
    config = sl.CacheConfig(
        vocab_size=vocab_size,
        rounds=1,
        tokenizer_fingerprint=None if teachers is None else sl.fingerprint_tokenizer(teachers),
    )
    with sl.CacheWriter(path, config) as writer:
        writer.append([2], [0, 1], [3], [1])
    return sl.open(path)


def with_added(*tokens: str, special: bool = False) -> PreTrainedTokenizerFast:
    changed = tokenizer()
    for token in tokens:
        if special:
            changed.add_special_tokens({"additional_special_tokens": [token]})
        else:
            changed.add_tokens([token])
    return changed


def test_the_same_tokenizer_is_accepted(tmp_path: Path) -> None:
    sl.check_tokenizer(cache_of(tmp_path / "c", tokenizer()), tokenizer())


OTHERS = {
    "padding with the end of text": (
        lambda: tokenizer(pad_token="</s>"),
        r"the same but for special_tokens_map\['pad_token'\] = '</s>'",
    ),
    "an added token": (lambda: with_added("<x>"), r"the same but for the added tokens \['<x>'\]"),
    "two added tokens": (
        lambda: with_added("<x>", "<y>"),
        r"the same but for the added tokens \['<x>', '<y>'\]",
    ),
    "an added special token": (
        lambda: with_added("<x>", special=True),
        r"the same but for the added tokens \['<x>'\]",
    ),
    "more tokens than the teacher has": (
        lambda: tokenizer("a b c d e f g h i"),
        "its token 'i' has the id 10, and the cache's vocab_size is 10",
    ),
    "other words": (
        lambda: tokenizer("a b c x"),
        "it has 6 tokens with ids up to 5, and is neither the teacher's with more added tokens",
    ),
    "the same words in another order": (lambda: tokenizer("b a c d"), "it has 6 tokens"),
    "fewer words": (lambda: tokenizer("a b"), "it has 4 tokens with ids up to 3"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    make, message = OTHERS[name]
    cache = cache_of(tmp_path / "c", tokenizer())
    with pytest.raises(sl.FingerprintMismatchError, match=message) as caught:
        sl.check_tokenizer(cache, make())
    assert sl.fingerprint_tokenizer(tokenizer()) in str(caught.value)
    assert sl.fingerprint_tokenizer(make()) in str(caught.value)


def test_the_teachers_token_that_the_student_lacks(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "c", with_added("<x>"))
    with pytest.raises(sl.FingerprintMismatchError, match="it has 6 tokens"):
        sl.check_tokenizer(cache, tokenizer())


def test_a_cache_that_records_none_cannot_be_compared(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "c", None)
    with pytest.raises(sl.InvalidArgumentError, match="records no tokenizer_fingerprint"):
        sl.check_tokenizer(cache, tokenizer())
    with pytest.raises(sl.InvalidArgumentError, match=r"must have get_vocab\(\), got a str"):
        sl.check_tokenizer(cache_of(tmp_path / "d", tokenizer()), "gpt2")


def test_a_writer_does_not_go_on_with_another_tokenizer(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "c", tokenizer())
    other = sl.CacheConfig(
        vocab_size=10, rounds=1, tokenizer_fingerprint=sl.fingerprint_tokenizer(tokenizer("a"))
    )
    with pytest.raises(sl.FingerprintMismatchError, match="tokenizer_fingerprint of the cache is"):
        sl.CacheWriter(cache.path, other, resume=True)
