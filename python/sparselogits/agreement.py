"""Whether two valid things belong to the same cache."""

from __future__ import annotations

from sparselogits.config import CacheConfig
from sparselogits.errors import (
    FingerprintMismatchError,
    MismatchError,
    VocabularyMismatchError,
)

# The facts of `sparselogits.capture` that say which teacher a cache comes from.
TEACHER_KEYS = ("teacher", "teacher_class", "teacher_dtype", "teacher_weights_fingerprint")

_MISMATCHES = {
    "vocab_size": VocabularyMismatchError,
    "tokenizer_fingerprint": FingerprintMismatchError,
}


def check_same_config(
    held: CacheConfig, given: CacheConfig, where: str, holder: str = "the cache"
) -> None:
    """Refuses a configuration that would store other things than the cache holds.

    Args:
        held: Of the cache, which errors call `holder`.
        given: What is to go with it, which errors call `where`.

    Raises:
        MismatchError: Or the subclass for the field; names the field and both values.
    """
    name = held.first_difference(given)
    if name is not None:
        raise _MISMATCHES.get(name, MismatchError)(
            f"{where}: config.{name} of {holder} is {getattr(held, name)!r}, "
            f"not {getattr(given, name)!r}"
        )


def check_same_metadata(held: dict[str, str], given: dict[str, str], where: str) -> None:
    """Refuses other facts than the cache's.

    Raises:
        MismatchError: Names the key and both values.
    """
    for key in sorted(held.keys() | given.keys()):
        if held.get(key) != given.get(key):
            raise MismatchError(
                f"{where}: metadata[{key!r}] of the cache is {held.get(key)!r}, "
                f"not {given.get(key)!r}"
            )
