"""`recover`: makes what a dead writer left behind readable."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparselogits import _core
from sparselogits.agreement import check_same_config, check_same_metadata
from sparselogits.cache_models import CacheModels, model_file
from sparselogits.config import CacheConfig
from sparselogits.directory import (
    PARTIAL_SUFFIX,
    DirectoryListing,
    DirectoryLock,
    list_directory,
    local_directory,
    shard_name,
)
from sparselogits.durable import io_error
from sparselogits.errors import CacheIOError, MismatchError, SparseLogitsError
from sparselogits.finished_shard import finished_row
from sparselogits.id_set import first_repeated
from sparselogits.manifest import Manifest, ShardRow, read_manifest, shard_path
from sparselogits.manifest_parser import shard_metadata
from sparselogits.shard_set import open_shards
from sparselogits.temporary_files import remove_temporary_files


@dataclass(frozen=True)
class RecoverReport:
    """What a recovery did.

    Attributes:
        path: The cache's directory.
        shards: Names of the shards that it took into the manifest, in order.
        sequences, positions, entries: What those shards hold.
        dropped_bytes: Bytes after the last commit of unfinished shards, now cut off.
        total_sequences: Sequences of the cache, those that were never in danger included.
    """

    path: str
    shards: tuple[str, ...]
    sequences: int
    positions: int
    entries: int
    dropped_bytes: int
    total_sequences: int


def recover(path: str | os.PathLike[str]) -> RecoverReport:
    """Finishes the shards that a dead writer left, up to their last commit, and lists them.

    Finished shards that no manifest names yet are taken in too. The manifest then says
    `complete: false`, because sequences may be missing; a writer that resumes and closes makes it
    true. Models that shards need are listed too, others removed. Calling it twice, or where nothing
    is wrong, changes nothing more.

    Raises:
        CacheIOError: There is no cache, a writer is still at work, or the system refused.
        MismatchError: A shard has another config or metadata, or a sequence_id that another
            shard has. The shard stays as it is, unlisted.
        FormatError: The manifest or a finished shard is damaged, or so is the model that it needs,
            or that is missing; names the file. The shard stays as it is, unlisted.
        InvalidArgumentError: `path` is not a local path.
    """
    directory = local_directory(path)
    with DirectoryLock(directory):
        return recover_directory(directory)


def recover_directory(directory: Path) -> RecoverReport:
    """As `recover`. REQUIRES: the caller holds the directory's lock."""
    remove_temporary_files(directory)
    _remove_second_names(directory)
    listing = list_directory(directory)
    if not listing.has_manifest and not listing.is_unfinished:
        raise CacheIOError(2, "holds no cache: no manifest and no shards", str(directory))
    merge = _Merge(directory, read_manifest(directory) if listing.has_manifest else None)
    dropped = sum(
        merge.take_partial(partial, final) for partial, final in _final_names(directory, listing)
    )
    for shard in list_directory(directory).sealed:
        merge.take_sealed(shard)
    return merge.finish(dropped)


class _Merge:
    """The manifest as it grows shard by shard."""

    def __init__(self, directory: Path, manifest: Manifest | None) -> None:
        self._directory = directory
        self._before = manifest
        self._manifest = manifest
        self._listed = {row.file for row in manifest.shards} if manifest is not None else set()
        self._taken: list[ShardRow] = []
        self._models: CacheModels | None = None

    def take_partial(self, partial: Path, final: Path) -> int:
        """Seals an unfinished shard under its final name; returns the bytes that were cut off."""
        partial = shard_path(self._directory, partial.name)  # never cuts a file that lies elsewhere
        found = _core.recover_shard(str(partial), str(final))
        if found["sequences"] == 0 and found["metadata_json"]:
            self._agree(found, partial)  # else the writer died before it had written anything
        return int(found["dropped_bytes"])

    def take_sealed(self, shard: Path) -> None:
        """Lists a finished shard, unless it is listed."""
        if shard.name in self._listed:
            return
        found = self._shard_info(shard)
        manifest = self._agree(found, shard)
        totals = (found["sequences"], found["positions"], found["entries"])
        row = finished_row(shard, shard.name, found["uuid"], totals)
        self._taken.append(row)
        models = {model.file: model for model in manifest.models}
        if found["model_digest"]:
            file = model_file(found["model_digest"])
            models.setdefault(file, self._models_there().rows[file])
        self._manifest = replace(
            manifest,
            shards=(*manifest.shards, row),
            models=tuple(sorted(models.values())),
            complete=False,
        )

    def finish(self, dropped: int) -> RecoverReport:
        """Writes the manifest if it changed."""
        manifest = self._manifest
        if manifest is not None and manifest is not self._before:
            if self._taken:
                _refuse_repeated_ids(self._directory, manifest, self._taken)
            manifest.write(self._directory)
        self._remove_other_models()
        rows = self._taken
        return RecoverReport(
            path=str(self._directory),
            shards=tuple(row.file for row in rows),
            sequences=sum(row.sequences for row in rows),
            positions=sum(row.positions for row in rows),
            entries=sum(row.entries for row in rows),
            dropped_bytes=dropped,
            total_sequences=sum(row.sequences for row in manifest.shards) if manifest else 0,
        )

    def _shard_info(self, shard: Path) -> dict[str, Any]:
        path = str(shard_path(self._directory, shard.name))
        try:
            return _core.read_shard_info(path, self._models_there().loaded)
        except SparseLogitsError as error:
            blamed = self._models_there().blamed(error, shard.name)
            if blamed is None:
                raise
            raise blamed from error

    def _models_there(self) -> CacheModels:
        if self._models is None:
            files = [path.name for path in list_directory(self._directory).models]
            self._models = CacheModels.named(self._directory, files)
        return self._models

    def _remove_other_models(self) -> None:
        """Those that no shard needs: of a writer that died before it had finished one."""
        needed = set() if self._manifest is None else {row.file for row in self._manifest.models}
        for path in list_directory(self._directory).models:
            try:
                if path.name not in needed and (path.is_file() or path.is_symlink()):
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise io_error(error, "cannot remove a model that no shard needs", path) from error

    def _agree(self, found: dict[str, Any], shard: Path) -> Manifest:
        """The manifest, which the first shard makes where there is none."""
        config = CacheConfig.from_core(found["config"])
        metadata = shard_metadata(str(shard), found["metadata_json"])
        if self._manifest is None:
            self._manifest = Manifest(config, metadata)
        check_same_config(self._manifest.config, config, str(shard))
        check_same_metadata(self._manifest.metadata, metadata, str(shard))
        return self._manifest


def _final_names(directory: Path, listing: DirectoryListing) -> list[tuple[Path, Path]]:
    """Where each unfinished shard goes: its own name, or a new one where that is taken."""
    names, number = [], listing.next_number
    for partial in listing.partials:
        final = directory / partial.name.removesuffix(PARTIAL_SUFFIX)
        if final in listing.sealed:
            final = directory / shard_name(number)
            number += 1
        names.append((partial, final))
    return names


def _remove_second_names(directory: Path) -> None:
    """Where a crash of the machine cut a rename in half, both names may be there: of one file."""
    try:
        for partial in list_directory(directory).partials:
            final = directory / partial.name.removesuffix(PARTIAL_SUFFIX)
            if final.exists() and final.samefile(partial):
                partial.unlink()
    except OSError as error:
        raise io_error(error, "cannot remove a second name of a shard in", directory) from error


def _refuse_repeated_ids(directory: Path, manifest: Manifest, taken: list[ShardRow]) -> None:
    ids, _, _ = open_shards(directory, manifest, verify_checksums=True).sequence_table()
    repeated = first_repeated(np.sort(ids))
    if repeated is not None:
        raise MismatchError(
            f"{directory}: sequence_id {repeated} is in more than one place; "
            f"the shards that no manifest lists are {', '.join(row.file for row in taken)}"
        )
