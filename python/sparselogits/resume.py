"""What a writer finds in its directory, and whether it may go on there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from sparselogits import _core
from sparselogits.agreement import check_same_config, check_same_metadata
from sparselogits.cache_models import needed_model, sound_models
from sparselogits.config import CacheConfig
from sparselogits.directory import DirectoryListing, list_directory
from sparselogits.errors import InvalidArgumentError
from sparselogits.id_set import IdSet
from sparselogits.manifest import Manifest, read_manifest, shard_path
from sparselogits.recover import recover_directory
from sparselogits.shard_set import open_shards
from sparselogits.temporary_files import remove_temporary_files


@dataclass(frozen=True)
class WriterState:
    """Where a writer starts.

    Attributes:
        manifest: What the cache holds already; without shards for a new one.
        ids: The sequence ids of those shards.
        next_id: The highest of them plus 1, or 0.
        next_number: Of the next shard.
        model: Of the last shard that has one.
    """

    manifest: Manifest
    ids: IdSet
    next_id: int
    next_number: int
    model: _core.CodecModel | None = None


def open_for_writing(
    directory: Path, config: CacheConfig, metadata: dict[str, str] | None, resume: bool
) -> WriterState:
    """Prepares a directory for a writer. REQUIRES: the caller holds the directory's lock.

    Raises:
        InvalidArgumentError, MismatchError, CacheIOError, FormatError: See `CacheWriter`.
    """
    remove_temporary_files(directory)
    listing = list_directory(directory)
    if not resume:
        _refuse_existing(directory, listing)
    elif listing.has_manifest or listing.is_unfinished:
        # Even where nothing looks unfinished: a finished shard may not be listed yet.
        recover_directory(directory)
        listing = list_directory(directory)
    if not listing.has_manifest:
        empty = Manifest(config, {} if metadata is None else metadata)
        return WriterState(empty, IdSet(), 0, listing.next_number)
    manifest = read_manifest(directory)
    check_same_config(manifest.config, config, str(directory))
    if metadata is not None:
        check_same_metadata(manifest.metadata, metadata, str(directory))
    ids, next_id = IdSet(), 0
    models = sound_models(directory, manifest)
    if manifest.shards:
        shards = open_shards(directory, manifest, verify_checksums=True, models=models)
        held, _, _ = shards.sequence_table()
        ids.add(held)
        next_id = int(held.max()) + 1 if len(held) else 0
    if manifest.complete:
        manifest = replace(manifest, complete=False)
        manifest.write(directory)
    model = _last_model(directory, manifest, models)
    return WriterState(manifest, ids, next_id, listing.next_number, model)


def _last_model(
    directory: Path, manifest: Manifest, models: list[_core.CodecModel]
) -> _core.CodecModel | None:
    if len(models) <= 1:
        return models[0] if models else None
    by_name = {model.file_name: model for model in models}
    for row in reversed(manifest.shards):
        name = needed_model(shard_path(directory, row.file), models)
        if name is not None:
            return by_name[name]
    return None


def _refuse_existing(directory: Path, listing: DirectoryListing) -> None:
    if listing.is_unfinished:
        raise InvalidArgumentError(
            f"{directory} holds an unfinished cache, whose writer is gone: sl.recover(path) makes "
            "it readable, CacheWriter(..., resume=True) goes on; or choose another directory"
        )
    if listing.has_manifest:
        raise InvalidArgumentError(
            f"{directory} already holds a cache: choose another directory, "
            "or append with CacheWriter(..., resume=True)"
        )
