"""`merge`: joins the caches of parallel writers, or adds up draws of the same positions."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparselogits.agreement import check_same_config
from sparselogits.cache_models import sound_models
from sparselogits.checks import boolean, choice
from sparselogits.directory import local_directory, shard_name
from sparselogits.durable import make_directory
from sparselogits.errors import CacheIOError, InvalidArgumentError
from sparselogits.file_links import link_or_copy
from sparselogits.manifest import Manifest, ShardRow, check_metadata, read_manifest
from sparselogits.merge_metadata import merged_metadata
from sparselogits.merge_models import SourceModel, merged_models
from sparselogits.merge_order import SourceShard, ordered_shards
from sparselogits.merge_rounds import plan_sum, write_sum
from sparselogits.shard_set import open_shards
from sparselogits.source_cache import source_manifest
from sparselogits.staging import Staging, check_target

Progress = Callable[[int, int], None]
Source = tuple[Path, Manifest]
# Makes the cache in an empty directory; returns the number of shards that were linked.
Make = Callable[[Path, Progress | None], int]


@dataclass(frozen=True)
class MergeReport:
    """What a merge made.

    Attributes:
        path: Of the new cache.
        sources: Number of caches that it was made of.
        shards, sequences, positions, entries: What it holds.
        bytes: Of all its files, the manifest and the models included.
        linked: Shards that share their file with the source.
        copied: Shards that could not be linked, or that hold sums of rounds.
        complete: False where a source was incomplete (`allow_incomplete`).
        models: What the shards of a compact cache are coded with.
    """

    path: str
    sources: int
    shards: int
    sequences: int
    positions: int
    entries: int
    bytes: int
    linked: int
    copied: int
    complete: bool
    models: int = 0


def merge(
    sources: Iterable[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    allow_incomplete: bool = False,
    rounds: str | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Joins finished caches of the same teacher, configuration and tokenizer into a new one.

    Nothing is decoded or written again: shards and models become hard links to those of the
    sources, or copies where the file system cannot link, and shards keep their uuid and SHA-256. A
    model that several sources have is there once. Shards are ordered by
    their lowest sequence_id. Structure and sequence ids are checked, records are not: that is for
    `sl.verify`. The sources are never changed; afterwards they may be deleted.

    The cache is made in `.NAME.merging` beside `path` and appears by one rename. A merge that was
    killed leaves that directory, and nothing at `path`: the next call starts anew.

    With `rounds="add"` the sources hold draws of the same sequences, and the counts of each
    position add up to one sample of all their rounds. That is exact, and refused elsewhere, for
    multinomial draws of different seeds, and for systematic draws of one seed whose M offsets are
    o + m/M (two: o and o + 1/2), which give the systematic sample of M times the rounds
    (`sparselogits.round_sources`). Seeds and offsets are read from the metadata, as `capture`
    writes them; those of the new cache say what was added. Shards are read and written anew, in
    the order, with the tokens and in the codec of the first source.

    Args:
        sources: The caches' directories, one or more.
        path: The new cache: missing, or an empty directory.
        metadata: Facts to add, and the values of those on which the sources differ. Those that
            name the teacher (`teacher`, `teacher_*` of a capture) must be the same everywhere.
        allow_incomplete: Take recovered caches too. The new one is then incomplete as well.
        rounds: None: the sources hold different sequences. "add": the same ones; see above.
        progress: Called with the bytes done and the bytes to do; positions for `rounds="add"`.

    Raises:
        InvalidArgumentError: No source; one is given twice, unfinished or incomplete; `path`
            holds something or is inside a source; draws that are to be added are no sample
            together.
        MismatchError: Sources have different configurations or metadata, the same sequence_id or
            the same shard, or, for `rounds="add"`, different sequences or empty positions; names
            the field, both values and both places.
        FormatError: A source is damaged.
        CacheIOError: There is no cache, another merge into `path` is at work, the shards are too
            many for one manifest (repack the sources into larger ones), or the system refused.
    """
    if isinstance(sources, (str, bytes, os.PathLike)):
        raise InvalidArgumentError(f"sources must be several paths, got one: {sources!r}")
    directories = [local_directory(source) for source in sources]
    target = local_directory(path)
    given = check_metadata(metadata)
    allow_incomplete = boolean("allow_incomplete", allow_incomplete)
    if rounds is not None:
        choice("rounds", rounds, ("add",))
    _refuse_repeated(directories)
    check_target(target, directories)
    caches = [
        (directory, source_manifest(directory, allow_incomplete=allow_incomplete))
        for directory in directories
    ]
    make = _joining(caches, given) if rounds is None else _adding(caches, given)
    with Staging(target, "merging") as staging:
        staging.discard()  # of a merge that was killed
        try:
            linked = make(staging.cache, progress)
            staging.publish()
        except BaseException:
            with contextlib.suppress(CacheIOError):
                staging.discard()
            raise
    written = read_manifest(target)
    return MergeReport(
        path=str(target),
        sources=len(caches),
        shards=len(written.shards),
        sequences=sum(row.sequences for row in written.shards),
        positions=sum(row.positions for row in written.shards),
        entries=sum(row.entries for row in written.shards),
        bytes=written.cache_bytes,
        linked=linked,
        copied=len(written.shards) - linked,
        complete=written.complete,
        models=len(written.models),
    )


def _joining(caches: Sequence[Source], given: Mapping[str, str]) -> Make:
    """Checks that the caches go together; returns what makes a cache of their shards."""
    first_directory, first = caches[0]
    for directory, manifest in caches[1:]:
        check_same_config(first.config, manifest.config, str(directory), str(first_directory))
    empty = Manifest(
        first.config,
        merged_metadata(caches, given),
        complete=all(manifest.complete for _, manifest in caches),
    )
    models = [sound_models(directory, manifest) for directory, manifest in caches]
    shards = ordered_shards(caches, models)
    sources_of_models = merged_models(caches, models)
    merged = replace(
        empty, shards=tuple(_renamed(shards)), models=tuple(m.row for m in sources_of_models)
    )
    return lambda directory, progress: _fill(directory, merged, shards, sources_of_models, progress)


def _adding(caches: Sequence[Source], given: Mapping[str, str]) -> Make:
    """Checks that the draws of the caches add up; returns what makes the cache of their sums."""
    plan = plan_sum(caches, given)

    def make(directory: Path, progress: Progress | None) -> int:
        write_sum(plan, directory, progress)
        return 0

    return make


def _renamed(shards: list[SourceShard]) -> list[ShardRow]:
    return [replace(shard.row, file=shard_name(i)) for i, shard in enumerate(shards)]


def _fill(
    directory: Path,
    manifest: Manifest,
    shards: list[SourceShard],
    models: list[SourceModel],
    progress: Progress | None,
) -> int:
    """Makes the cache in an empty directory; returns the number of shards that were linked."""
    make_directory(directory)
    for model in models:
        link_or_copy(model.path, directory / model.row.file, model.sha256)
    total = sum(row.bytes for row in manifest.shards)
    done = linked = 0
    for shard, row in zip(shards, manifest.shards, strict=True):
        linked += link_or_copy(shard.path, directory / row.file, row.sha256)
        done += row.bytes
        if progress is not None:
            progress(done, total)
    manifest.write(directory)  # syncs the directory too
    open_shards(directory, manifest, verify_checksums=True)
    return linked


def _refuse_repeated(directories: list[Path]) -> None:
    if not directories:
        raise InvalidArgumentError("sources must be at least one cache, got none")
    seen: dict[Path, Path] = {}
    for directory in directories:
        real = directory.resolve()
        if real in seen:
            also = "" if seen[real] == directory else f", also as {seen[real]}"
            raise InvalidArgumentError(f"{directory} is given twice{also}")
        seen[real] = directory
