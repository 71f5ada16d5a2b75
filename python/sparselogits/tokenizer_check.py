"""Whether a tokenizer is the one that a cache was made with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sparselogits.errors import FingerprintMismatchError, InvalidArgumentError
from sparselogits.fingerprint import TokenizerFacts

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_MAX_ADDED = 32  # added tokens that are left out in turn, to find out what differs


def check_tokenizer(cache: Cache, tokenizer: Any) -> None:
    """Compares a tokenizer with the fingerprint that the cache records.

    Args:
        cache: An open cache.
        tokenizer: As `fingerprint_tokenizer` takes it.

    Raises:
        FingerprintMismatchError: It is another one; says what differs, where that can be told.
        InvalidArgumentError: The cache records no tokenizer_fingerprint, or this is no tokenizer.
    """
    recorded = cache.config.tokenizer_fingerprint
    if recorded is None:
        raise InvalidArgumentError(f"{cache.path} records no tokenizer_fingerprint to compare with")
    facts = TokenizerFacts.of(tokenizer)
    found = facts.fingerprint()
    if found == recorded:
        return
    raise FingerprintMismatchError(
        f"{cache.path} was made with the tokenizer {recorded}, this one is {found}: "
        f"{_difference(facts, tokenizer, recorded, cache.config.vocab_size)}"
    )


def _difference(facts: TokenizerFacts, tokenizer: Any, recorded: str, vocab_size: int) -> str:
    largest = max((index for index, _ in facts.vocabulary), default=-1)
    if largest >= vocab_size:
        token = dict(facts.vocabulary)[largest]
        return (
            f"its token {token!r} has the id {largest}, and the cache's vocab_size is {vocab_size}"
        )
    for what, other in _neighbours(facts, tokenizer):
        if other.fingerprint() == recorded:
            return f"the teacher's was the same but for {what}"
    return (
        f"it has {len(facts.vocabulary)} tokens with ids up to {largest}, and is neither the "
        "teacher's with more added tokens nor with more special tokens"
    )


def _neighbours(facts: TokenizerFacts, tokenizer: Any) -> Iterator[tuple[str, TokenizerFacts]]:
    """Tokenizers that this one is easily made from, and what this one has in addition."""
    for name, token in facts.special.items():
        special = {key: value for key, value in facts.special.items() if key != name}
        yield f"special_tokens_map[{name!r}] = {token!r}", replace(facts, special=special)
    added = sorted(_added_ids(tokenizer))[-_MAX_ADDED:]
    for first in reversed(range(len(added))):
        left_out = set(added[first:])
        tokens = [token for index, token in facts.vocabulary if index in left_out]
        fewer = replace(
            facts, vocabulary=[pair for pair in facts.vocabulary if pair[0] not in left_out]
        )
        yield f"the added tokens {tokens}", fewer
        special = {name: token for name, token in facts.special.items() if token not in tokens}
        if len(special) < len(facts.special):
            names = sorted(facts.special.keys() - special.keys())
            yield f"the added tokens {tokens}, special as {names}", replace(fewer, special=special)


def _added_ids(tokenizer: Any) -> list[int]:
    get_added_vocab = getattr(tokenizer, "get_added_vocab", None)
    return [int(index) for index in get_added_vocab().values()] if callable(get_added_vocab) else []
