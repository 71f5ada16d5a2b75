"""`train_model`: a model of the `compact` codec from a cache that is there."""

from __future__ import annotations

import os
from dataclasses import replace

from sparselogits.checks import boolean, integer
from sparselogits.codec_model import CodecModel
from sparselogits.errors import InvalidArgumentError
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache
from sparselogits.training_sample import TRAINING_POSITIONS, spread_positions, train_on

_MAX_POSITIONS = 1 << 24
_MAX_CLASSES = 256
_MAX_EXPECTED = 1 << 60


def train_model(
    source: Cache | str | os.PathLike[str],
    *,
    store_tokens: bool | None = None,
    max_positions: int = TRAINING_POSITIONS,
    num_classes: int | None = None,
    expected_positions: int | None = None,
) -> CodecModel:
    """Trains a model of the `compact` codec on positions spread evenly over a cache.

    A writer trains one by itself. One made here serves several writers at once, none of which
    then has to train, and is stored only once where their caches are merged:
    `CacheWriter(path, config, model=model)`. The same source gives the same model.

    Args:
        source: A cache, of any codec: its path, or open.
        store_tokens: Whether the model is for caches that store tokens; default: as the source.
        max_positions: The most to train on, 1 to 2^24; fewer where they have more than 2^23
            entries. Time and memory grow with it.
        num_classes: Of positions, 1 to 256; 1 gives the smallest and fastest model. Default: as
            many as the positions can tell apart.
        expected_positions: Of all caches that will use it together, at least 1: the fewer, the
            smaller the model that pays for itself. Default: very many.

    Raises:
        InvalidArgumentError: The source has no entries, or stores no tokens and `store_tokens` is
            True; or an argument is wrong.
        FormatError: The source is damaged.
        CacheIOError: There is no cache, or it cannot be read.
    """
    max_positions = integer("max_positions", max_positions, 1, _MAX_POSITIONS)
    classes = 0 if num_classes is None else integer("num_classes", num_classes, 1, _MAX_CLASSES)
    expected = (
        0
        if expected_positions is None
        else integer("expected_positions", expected_positions, 1, _MAX_EXPECTED)
    )
    cache = source if isinstance(source, Cache) else open_cache(source)
    stores = cache.config.store_tokens
    wants = stores if store_tokens is None else boolean("store_tokens", store_tokens)
    if wants and not stores:
        raise InvalidArgumentError(
            f"store_tokens=True needs the tokens, which {cache.path} does not store"
        )
    positions = spread_positions(cache.num_positions, cache.num_entries, max_positions)
    sample = cache.read_positions(positions)
    model = train_on(
        replace(cache.config, codec="compact", store_tokens=wants),
        sample.offsets,
        sample.token_ids,
        sample.counts,
        sample.weights,
        sample.input_ids if wants else None,
        classes,
        expected,
    )
    if model is None:
        raise InvalidArgumentError(f"{cache.path} has no entries to train a model on")
    return CodecModel(model)
