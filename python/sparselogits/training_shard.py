"""The training shard: written packed, read to train a model, coded anew with what it taught.

The `compact` codec needs a model, and a model needs samples. A writer without one puts its first
positions into packed blocks of an ordinary shard, so that committing and recovering them is as
ever. When that shard holds enough, or the writer closes, it is finished, and then this happens:

1. The finished shard is read, a model trained, and the shard written once more with that model
   under a hidden name, which recovery removes.
2. Where it and the model are not smaller together than the finished shard, that stays as it is.
3. The model is written under its name, durably.
4. The new shard takes the place of the finished one by one rename, and the directory is synced.
5. The manifest lists shard and model.

At every instant exactly one file under the shard's name holds the data, whole and durable, and
the model is there before a shard that needs it. A kill before step 4 leaves a packed shard for
recovery, and perhaps a model that no shard needs, which recovery removes; one after it leaves a
compact shard with its model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sparselogits import _core
from sparselogits.append_batch import AppendBatch
from sparselogits.cache_models import write_model
from sparselogits.durable import io_error, sync_directory
from sparselogits.finished_shard import finished_row
from sparselogits.manifest import Manifest, ModelRow, ShardRow, metadata_json
from sparselogits.sequence_runs import BATCH_BYTES, memory_of, sequence_runs
from sparselogits.shard_set import open_shards
from sparselogits.training_sample import (
    TRAINING_ENTRIES,
    TRAINING_POSITIONS,
    spread_positions,
    train_on,
)

Train = Callable[[], "_core.CodecModel | None"]


def holds_enough(shard: _core.ShardWriter, tried: int) -> bool:
    """Whether a shard is large enough to train on, after one of `tried` positions was in vain."""
    return (
        shard.num_positions >= max(TRAINING_POSITIONS, 2 * tried)
        or shard.num_entries >= 2 * TRAINING_ENTRIES
    )


def recode_shard(
    directory: Path, packed: Manifest, train: Train | None, *, is_last: bool
) -> tuple[_core.CodecModel, ModelRow, ShardRow] | None:
    """Codes a finished packed shard anew with a model, where that saves more than the model takes.

    Args:
        directory: Of the cache, locked by the caller.
        packed: A manifest that lists this shard alone.
        train: Makes the model; default: trains it on the shard.
        is_last: Whether nothing will follow it, so that the model must pay for itself here.

    Returns:
        The model and both rows, or None where the shard stays as it is.

    Raises:
        CacheIOError: The system refused. The finished shard is there, the old or the new one.
    """
    (row,) = packed.shards
    final = directory / row.file
    reader = open_shards(directory, packed, verify_checksums=True, models=[])
    model = _trained(reader, packed, is_last) if train is None else train()
    if model is None:
        return None
    growing = directory / f".{row.file}.recoding.tmp"
    finished = directory / f".{row.file}.recoded.tmp"
    try:
        uuid = _write_again(reader, packed, model, growing, finished)
        totals = (row.sequences, row.positions, row.entries)
        recoded = finished_row(finished, row.file, uuid, totals)
        if recoded.bytes + len(model.to_bytes()) >= row.bytes:
            return None
        model_row = write_model(directory, model)
        try:
            finished.replace(final)
            sync_directory(directory)
        except OSError as error:
            raise io_error(error, "cannot replace the training shard", final) from error
    finally:
        for path in (growing, finished):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return model, model_row, recoded


def _trained(reader: _core.CacheReader, packed: Manifest, is_last: bool) -> _core.CodecModel | None:
    positions = spread_positions(reader.num_positions, reader.num_entries, TRAINING_POSITIONS)
    expected = reader.num_positions if is_last else 0
    sample = reader.read_positions(positions)
    return train_on(packed.config, *sample, expected_positions=expected)


def _write_again(
    reader: _core.CacheReader,
    packed: Manifest,
    model: _core.CodecModel,
    growing: Path,
    finished: Path,
) -> str:
    """The same sequences in the same order in a new file; returns its uuid."""
    shard = _core.ShardWriter(
        str(growing), packed.config.to_core(), metadata_json(packed.metadata), model
    )
    try:
        for batch in _batches(reader):
            batch.append_to(shard)
        uuid = shard.uuid
        shard.finish(str(finished))
    except BaseException:
        shard.abandon()
        raise
    return uuid


def _batches(reader: _core.CacheReader) -> Iterator[AppendBatch]:
    ids, starts, fingerprints = reader.sequence_table()
    sizes = memory_of(np.diff(starts), reader.num_entries / max(1, reader.num_positions))
    for first, last in sequence_runs(sizes, BATCH_BYTES):
        offsets, token_ids, counts, weights, input_ids, sequence_offsets = reader.read_sequences(
            np.arange(first, last, dtype=np.int64), 0, -1
        )
        stored = input_ids is not None
        yield AppendBatch(
            input_ids=input_ids.astype(np.int64)
            if input_ids is not None
            else np.zeros(len(offsets) - 1, np.int64),
            sequence_offsets=sequence_offsets,
            offsets=offsets,
            token_ids=token_ids.astype(np.int64),
            counts=None if counts is None else counts.astype(np.int64),
            weights=weights,
            sequence_ids=ids[first:last],
            fingerprints=None if stored else fingerprints[first:last],
        )
