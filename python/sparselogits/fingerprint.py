"""Fingerprints: 64-bit hashes by which tokens and tokenizers are told apart.

Both are XXH64 with seed 0 of bytes that are written down here, so that they are the same in every
process, release and implementation. They find mistakes; they do not stop a forger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.arrays import integer_array
from sparselogits.errors import InvalidArgumentError

_MAX_TOKEN = (1 << 32) - 1


def fingerprint_tokens(input_ids: npt.ArrayLike) -> int:
    """The fingerprint that a cache stores of a sequence's input tokens (formats/v1.md, section 6).

    Args:
        input_ids: (S,) integers, 0 to 2^32 - 1: an array, a list, a torch CPU tensor.

    Returns:
        XXH64, seed 0, of the ids as little-endian uint32.

    Raises:
        InvalidArgumentError: Not one-dimensional, not integers, or outside the limits.
    """
    ids = integer_array("input_ids", input_ids)
    if ids.size and (ids.min() < 0 or ids.max() > _MAX_TOKEN):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        raise InvalidArgumentError(f"input_ids must be from 0 to {_MAX_TOKEN}, got {wrong}")
    return _core.fingerprint_tokens(ids.astype(np.uint32))


def fingerprint_if_tokens(ids: npt.NDArray[np.int64]) -> int | None:
    """The fingerprint of (S,) ids; None where one of them is no token id."""
    if ids.size and (ids.min() < 0 or ids.max() > _MAX_TOKEN):
        return None
    return _core.fingerprint_tokens(ids.astype(np.uint32))


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """The fingerprint of a tokenizer's vocabulary and special tokens.

    XXH64, seed 0, of the UTF-8 bytes of a JSON array without spaces and with non-ASCII characters
    escaped: `[[[token, id], …], [[name, token or list of tokens], …]]`. The first list is
    `get_vocab()` in ascending order of id, then token; the second is `special_tokens_map` in
    ascending order of name. Merges and normalisation are not covered.

    Args:
        tokenizer: Anything with `get_vocab()` as Hugging Face tokenizers have it;
            `special_tokens_map` is used where there is one.

    Returns:
        16 lower-case hex digits, as `CacheConfig.tokenizer_fingerprint` takes them.

    Raises:
        InvalidArgumentError: The object has no `get_vocab()`, or it is no str → int mapping.
    """
    return TokenizerFacts.of(tokenizer).fingerprint()


@dataclass(frozen=True)
class TokenizerFacts:
    """What a tokenizer's fingerprint is made of.

    Attributes:
        vocabulary: (id, token), ascending.
        special: `special_tokens_map`, with plain text for tokens.
    """

    vocabulary: list[tuple[int, str]]
    special: dict[str, Any]

    @classmethod
    def of(cls, tokenizer: Any) -> TokenizerFacts:
        """The facts of an object. Raises InvalidArgumentError as `fingerprint_tokenizer`."""
        get_vocab = getattr(tokenizer, "get_vocab", None)
        if not callable(get_vocab):
            raise InvalidArgumentError(
                f"tokenizer must have get_vocab(), got a {type(tokenizer).__name__}"
            )
        try:
            vocabulary = sorted((int(index), str(token)) for token, index in get_vocab().items())
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidArgumentError(f"get_vocab() must give token → id: {error}") from error
        special = getattr(tokenizer, "special_tokens_map", None) or {}
        return cls(vocabulary, {name: _plain(token) for name, token in special.items()})

    def fingerprint(self) -> str:
        """16 hex digits."""
        canonical = json.dumps(
            [
                [[token, index] for index, token in self.vocabulary],
                [[name, self.special[name]] for name in sorted(self.special)],
            ],
            ensure_ascii=True,
            separators=(",", ":"),
        )
        return f"{_core.xxh64(canonical.encode('ascii')):016x}"


def _plain(token: Any) -> Any:
    # AddedToken objects become their text: their repr differs between releases.
    if isinstance(token, (list, tuple)):
        return [_plain(item) for item in token]
    return str(token)
