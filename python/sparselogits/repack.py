"""`repack`: the same samples in another codec, order, selection or size of shards."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sparselogits.checks import boolean, integer
from sparselogits.codec_model import CodecModel
from sparselogits.directory import list_directory, local_directory
from sparselogits.errors import CacheIOError, CorruptionError
from sparselogits.limits import MAX_SHARD_BYTES
from sparselogits.manifest import read_manifest
from sparselogits.reader import Cache
from sparselogits.repack_plan import RepackPlan, hold_to_plan, make_plan
from sparselogits.repack_tokens import RepackTokens
from sparselogits.repack_writer import write_repacked
from sparselogits.shard_series import SHARD_BYTES
from sparselogits.source_cache import source_manifest
from sparselogits.staging import Staging, check_target

Progress = Callable[[int, int], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RepackReport:
    """What a repack made.

    Attributes:
        path: Of the new cache.
        shards, sequences, positions, entries: What it holds.
        bytes: Of all its files, the manifest and the models included.
        source_bytes: The same of the source.
        left_out: Sequences of the source that were not asked for.
        resumed: Sequences that an earlier, interrupted call had written.
        complete: False where the source is incomplete.
        models: What the shards of a compact cache are coded with.
    """

    path: str
    shards: int
    sequences: int
    positions: int
    entries: int
    bytes: int
    source_bytes: int
    left_out: int
    resumed: int
    complete: bool
    models: int = 0


def repack(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    codec: str | None = None,
    model: CodecModel | str | os.PathLike[str] | None = None,
    store_tokens: bool | None = None,
    input_ids: Any = None,
    order: str | None = None,
    sequence_ids: Iterable[int] | None = None,
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    restart: bool = False,
) -> RepackReport:
    """Writes the samples of a cache anew, losslessly: counts, weights, ids, fingerprints stay.

    Every block that is read is checked against its checksum, every token against its sequence's
    fingerprint; memory is bounded but for the longest sequence. The source is never changed.

    The cache is made in `.NAME.repacking` beside `path` and appears by one rename. A repack that
    was interrupted or killed leaves that directory, and nothing at `path`: the same call goes on
    after its last commit.

    Args:
        source: A cache, finished or recovered. A recovered one gives an incomplete one.
        path: The new cache: missing, or an empty directory.
        codec: Of the new cache; default: the source's.
        model: For "compact": what to code with, a `CodecModel` or the path of one. Default: one
            trained on positions spread evenly over what is taken of the source, if it saves more
            than it takes.
        store_tokens: False drops stored tokens, True adds them; default: as the source.
        input_ids: To add tokens: `input_ids[i]` are those of the source's sequence i, 1-D integers.
        order: "sequence_id" for ascending ids; default: that of `sequence_ids`, or the source's.
        sequence_ids: The sequences to take; default: all. What `sl.verify` found damaged is
            dropped by leaving it out here.
        shard_bytes: A shard is finished when it has grown to this size, 1 to 2^34.
        metadata: Facts to add or to replace, but for those that name the teacher.
        progress: Called with the positions done and the positions to do.
        restart: Begin anew, whatever an interrupted call with other arguments has left.

    Raises:
        InvalidArgumentError: An argument is wrong, `path` holds something, or an interrupted call
            had other arguments and `restart` is False.
        SequenceNotFoundError: The source has none of the `sequence_ids`.
        FingerprintMismatchError: `input_ids` are not the tokens that the teacher saw; names the
            first sequence that differs.
        MismatchError: `metadata` names another teacher, or `model` was trained for other records.
        FormatError: The source is damaged where it was read, or `model` is no model.
        CacheIOError: There is no cache, another repack into `path` is at work, or the system
            refused.
    """
    directory, target = local_directory(source), local_directory(path)
    shard_bytes = integer("shard_bytes", shard_bytes, 1, MAX_SHARD_BYTES // 2)
    restart = boolean("restart", restart)
    check_target(target, [directory])
    manifest = source_manifest(directory, allow_incomplete=True)
    cache = Cache(directory, verify_checksums=True, digest=manifest.digest)
    plan, given = make_plan(
        cache,
        codec=codec,
        store_tokens=store_tokens,
        order=order,
        sequence_ids=sequence_ids,
        shard_bytes=shard_bytes,
        metadata=metadata,
        model=model,
    )
    tokens = RepackTokens(cache, plan.config.store_tokens, input_ids)
    with Staging(target, "repacking") as staging:
        if restart or not staging.cache.exists():
            staging.discard()
        hold_to_plan(staging.directory / "plan.json", plan)
        try:
            written = write_repacked(cache, plan, tokens, given, staging.cache, progress)
            made = _checked(staging.cache, cache, plan, written.entries)
            if not cache.complete:
                replace(made.manifest, complete=False).write(staging.cache)
            staging.publish()
        except BaseException as error:
            _leave(staging, error)
            raise
    manifest = read_manifest(target)
    return RepackReport(
        path=str(target),
        shards=len(manifest.shards),
        sequences=made.num_sequences,
        positions=made.num_positions,
        entries=made.num_entries,
        bytes=manifest.cache_bytes,
        source_bytes=cache.nbytes,
        left_out=len(cache) - made.num_sequences,
        resumed=written.resumed,
        complete=manifest.complete,
        models=len(manifest.models),
    )


def _checked(directory: Path, source: Cache, plan: RepackPlan, entries: int) -> Cache:
    """The cache that was made, if it holds what the plan asks for.

    Raises:
        CorruptionError: It does not.
    """
    made = Cache(directory, verify_checksums=True)
    for field, found, wanted in (
        ("sequence_id", made.sequence_ids, source.sequence_ids[plan.indices]),
        ("fingerprint", made.fingerprints, source.fingerprints[plan.indices]),
        ("length", made.sequence_lengths, source.sequence_lengths[plan.indices]),
        ("entries", np.array([made.num_entries]), np.array([entries])),
    ):
        if not np.array_equal(found, wanted):
            raise CorruptionError("is not what was written", str(directory), None, field)
    return made


def _leave(staging: Staging, error: BaseException) -> None:
    """After an error: what was committed stays for the next call; where nothing was, nothing."""
    with contextlib.suppress(CacheIOError):
        listing = list_directory(staging.cache) if staging.cache.is_dir() else None
        if listing is None or not (listing.sealed or listing.partials):
            staging.discard()
            return
    _log.warning(
        "%s ended the repacking into %s: what was committed waits in %s. The same call goes on; "
        "one with restart=True begins anew.",
        type(error).__name__,
        staging.target,
        staging.directory,
    )
