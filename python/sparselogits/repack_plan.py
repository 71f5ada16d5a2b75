"""What a repack is to make, and the file by which a later call knows that it means the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.arrays import unsigned_array
from sparselogits.checks import boolean, choice
from sparselogits.codec_model import CodecModel, model_for
from sparselogits.config import CacheConfig
from sparselogits.durable import io_error, replace_file
from sparselogits.errors import InvalidArgumentError, SequenceNotFoundError
from sparselogits.id_set import first_repeated
from sparselogits.manifest import check_metadata
from sparselogits.merge_metadata import merged_metadata
from sparselogits.reader import Cache
from sparselogits.sequence_table import SequenceTable

ORDERS = ("sequence_id",)


@dataclass(frozen=True)
class RepackPlan:
    """What is made of which cache.

    Attributes:
        source_digest: Of the source's manifest.
        config, metadata: Of the new cache.
        indices: (n,) int64: the source's sequences in the order of the new cache.
        shard_bytes: A shard is finished when it has grown to this size.
        model: Digest of the model that was given; "train" for one made of the source; None where
            the codec has none.
    """

    source_digest: str
    config: CacheConfig
    metadata: dict[str, str]
    indices: npt.NDArray[np.int64]
    shard_bytes: int
    model: str | None

    def facts(self) -> dict[str, Any]:
        """The plan in JSON's types; long lists by their digest."""
        sequences = np.ascontiguousarray(self.indices, "<i8").tobytes()
        return {
            "source_digest": self.source_digest,
            "config": self.config.to_dict(),
            "metadata": self.metadata,
            "sequences": len(self.indices),
            "sequences_sha256": hashlib.sha256(sequences).hexdigest(),
            "shard_bytes": self.shard_bytes,
            "model": self.model,
        }


def make_plan(
    cache: Cache,
    *,
    codec: str | None,
    store_tokens: bool | None,
    order: str | None,
    sequence_ids: Iterable[int] | None,
    shard_bytes: int,
    metadata: Mapping[str, str] | None,
    model: CodecModel | str | os.PathLike[str] | None,
) -> tuple[RepackPlan, _core.CodecModel | None]:
    """The plan of a call of `repack`, and the model that was given to it; arguments as there.

    Raises:
        InvalidArgumentError: An argument is wrong.
        SequenceNotFoundError: The cache has none of an id.
        MismatchError: `metadata` names another teacher, or `model` is for other records.
        FormatError: `model` is no model.
    """
    changes: dict[str, Any] = {}
    if codec is not None:
        changes["codec"] = codec
    if store_tokens is not None:
        changes["store_tokens"] = boolean("store_tokens", store_tokens)
    if sequence_ids is None:
        indices = np.arange(len(cache), dtype=np.int64)
    else:
        indices = _indices_of(cache, sequence_ids)
    if order is not None:
        choice("order", order, ORDERS)
        indices = indices[np.argsort(cache.sequence_ids[indices], kind="stable")]
    config = replace(cache.config, **changes)
    given = model_for(config, model)
    trains = config.codec == "compact" and given is None
    plan = RepackPlan(
        source_digest=cache.digest,
        config=config,
        metadata=merged_metadata([(Path(cache.path), cache.manifest)], check_metadata(metadata)),
        indices=indices,
        shard_bytes=shard_bytes,
        model="train" if trains else None if given is None else f"{given.digest:016x}",
    )
    return plan, given


def hold_to_plan(path: Path, plan: RepackPlan) -> None:
    """Notes the plan, or makes sure that it is the one noted by an earlier call.

    Raises:
        InvalidArgumentError: Another plan was noted; says in what it differs and what to do.
        CacheIOError: The file cannot be read or written.
    """
    facts = plan.facts()
    try:
        noted = _parsed(path.read_bytes())
    except FileNotFoundError:
        replace_file(path, json.dumps(facts, indent=1).encode("ascii"))
        return
    except OSError as error:
        raise io_error(error, "cannot read the plan", path) from error
    for name, value in facts.items():
        if noted.get(name) != value:
            raise InvalidArgumentError(
                f"{path.parent} holds an unfinished repack of another plan: its {name} is "
                f"{noted.get(name)!r}, not {value!r}. Finish that one with its own arguments, or "
                "begin anew with restart=True (--restart), which removes it"
            )


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        noted = json.loads(data)
    except (ValueError, RecursionError):
        noted = None
    return noted if isinstance(noted, dict) else {}


def _indices_of(cache: Cache, sequence_ids: Iterable[int]) -> npt.NDArray[np.int64]:
    """Where these sequences are, in their order."""
    listed = sequence_ids if isinstance(sequence_ids, np.ndarray) else list(sequence_ids)
    wanted = unsigned_array("sequence_ids", listed)
    repeated = first_repeated(np.sort(wanted))
    if repeated is not None:
        raise InvalidArgumentError(f"sequence_ids has {repeated} twice")
    indices = SequenceTable(cache.sequence_ids, cache.sequence_starts, cache.fingerprints).find_all(
        wanted
    )
    missing = np.flatnonzero(indices < 0)
    if len(missing):
        raise SequenceNotFoundError(f"{cache.path} has no sequence_id {wanted[missing[0]]}")
    return indices
