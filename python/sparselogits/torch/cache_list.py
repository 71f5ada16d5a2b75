"""The caches of a dataset: opened, filtered, and found to belong together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import sparselogits
from sparselogits.alignment import TokenSource
from sparselogits.errors import (
    FingerprintMismatchError,
    InvalidArgumentError,
    MismatchError,
    VocabularyMismatchError,
)
from sparselogits.reader import Cache

CacheOrPath: TypeAlias = Cache | str | os.PathLike[str]
CacheFilter: TypeAlias = Callable[[Mapping[str, str]], bool]
"""Whether a cache is used, by its metadata."""


@dataclass(frozen=True, eq=False)
class CacheList:
    """One or several caches of one teacher vocabulary.

    Attributes:
        caches: In the order given.
        sources: The tokens of each, None where the stored ones are meant.
        weights: Of each, or None.
    """

    caches: tuple[Cache, ...]
    sources: tuple[TokenSource | None, ...]
    weights: tuple[float | Fraction, ...] | None

    @classmethod
    def of(
        cls,
        cache: CacheOrPath | Sequence[CacheOrPath],
        input_ids: Any = None,
        weights: Sequence[float | Fraction] | None = None,
        cache_filter: CacheFilter | None = None,
    ) -> CacheList:
        """What a caller gave.

        Args:
            cache: One cache or several.
            input_ids: Of one cache its tokens; of several a list of such, or of None.
            weights: One number for each cache.
            cache_filter: Keeps the caches of whose metadata it is true.

        Raises:
            InvalidArgumentError: Nothing is left, lengths differ, or the tokens of a cache are
                nowhere.
            MismatchError: Two caches do not belong together; names both.
        """
        single = isinstance(cache, (Cache, str, os.PathLike))
        given: list[Any] = [cache] if single else list(cache)  # type: ignore[arg-type]
        sources: list[Any] = [input_ids] if single else _each("input_ids", input_ids, given)
        if weights is not None and len(weights) != len(given):
            raise InvalidArgumentError(
                f"mixture_weights has {len(weights)} numbers and there are {len(given)} caches"
            )
        opened = [item if isinstance(item, Cache) else sparselogits.open(item) for item in given]
        kept = [
            index
            for index, item in enumerate(opened)
            if cache_filter is None or cache_filter(item.metadata)
        ]
        if not kept:
            left = "cache_filter keeps none of the caches" if opened else "there is no cache"
            raise InvalidArgumentError(left)
        chosen = cls(
            tuple(opened[index] for index in kept),
            tuple(sources[index] for index in kept),
            None if weights is None else tuple(weights[index] for index in kept),
        )
        chosen._check_agreement()
        chosen._check_sources()
        return chosen

    @property
    def digest(self) -> str:
        """64 hex digits: of the one cache, or of the digests of all."""
        digests = [cache.digest for cache in self.caches]
        if len(digests) == 1:
            return digests[0]
        return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()

    def _check_agreement(self) -> None:
        # A loss has one vocabulary and one temperature.
        for name, error in (
            ("vocab_size", VocabularyMismatchError),
            ("tokenizer_fingerprint", FingerprintMismatchError),
            ("temperature", MismatchError),
        ):
            known = [
                (cache, value)
                for cache in self.caches
                if (value := getattr(cache.config, name)) is not None
            ]
            for cache, value in known[1:]:
                if value != known[0][1]:
                    raise error(
                        f"{known[0][0].path} has {name} {known[0][1]!r} and {cache.path} {value!r}"
                    )

    def _check_sources(self) -> None:
        for cache, source in zip(self.caches, self.sources, strict=True):
            if source is None and not cache.config.store_tokens:
                raise InvalidArgumentError(
                    f"{cache.path} stores no tokens: pass input_ids, the token windows it was "
                    "made from"
                )
            if source is not None and len(source) < len(cache):
                raise InvalidArgumentError(
                    f"input_ids has {len(source)} windows and the cache {len(cache)} sequences"
                )


def _each(name: str, values: Any, given: Sequence[Any]) -> list[Any]:
    if values is None:
        return [None] * len(given)
    if len(values) != len(given):
        raise InvalidArgumentError(
            f"{name} has {len(values)} sources of tokens and there are {len(given)} caches"
        )
    return list(values)
