"""The one place where the format tests touch the library: shards in, plain data or an error out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from reference_decoder import ALIGNMENT, Shard, shard_config
from reference_model import model_file

import sparselogits as sl
from sparselogits import _core
from sparselogits.cache_models import read_model
from sparselogits.shard_check import verify_shard

# The reference decoder calls all of a block's records one field; the library says which part.
RECORD_FIELDS = {"records", "counts", "entry_numbers", "ids", "weights", "stretch_padding"}
# The library compares the whole of INDX with what the frames give.
INDEX_FIELDS = {
    "index", "num_blocks", "num_sequence_frames", "num_sequences", "block_offsets",
    "block_starts", "sequence_frame_offsets", "sequence_frame_starts", "sequence_starts",
    "content_length",
}  # fmt: skip
PARTS = (RECORD_FIELDS, INDEX_FIELDS)


def agrees(found: str | None, expected: str) -> bool:
    """Whether the field that the library names is the expected one, or a part of it."""
    if found is None:
        return False
    together = any(found in part and expected in part for part in PARTS)
    return expected in ("", found) or together


def manifest_row(name: str, data: bytes, facts: Mapping[str, int]) -> dict[str, Any]:
    """The row of a manifest for a shard; `facts` has its sequences, positions and entries."""
    digest = hashlib.sha256(data).hexdigest()
    return {"file": name, "uuid": data[24:40].hex(), "bytes": len(data), **facts, "sha256": digest}


def core_models(shard: Path) -> list[_core.CodecModel]:
    """The model that a shard names, if it lies beside it. Raises sl.FormatError."""
    file = model_file(int.from_bytes(shard.read_bytes()[96:104], "little"))
    return [read_model(shard.parent, file)] if (shard.parent / file).exists() else []


def make_cache(
    directory: Path, data: bytes, shard: Shard, models: Mapping[str, bytes] | None = None
) -> Path:
    """A cache of one shard that the reference decoder has decoded (its manifest needs a config).

    Args:
        directory: Where to make it.
        data: The shard.
        shard: What it holds.
        models: Files, by name; the one that the shard needs is taken.
    """
    facts = {
        "sequences": len(shard.sequences),
        "positions": len(shard.records),
        "entries": sum(map(len, shard.records)),
    }
    manifest = {
        "format": "sparselogits",
        "version": [1, 0],
        "alignment": ALIGNMENT,
        "complete": True,
        "config": shard_config(shard.header),
        "metadata": shard.metadata,
        "shards": [manifest_row("shard-000000.slc", data, facts)],
    }
    directory.mkdir(exist_ok=True)
    if shard.header["model_digest"]:
        file = model_file(shard.header["model_digest"])
        model = (models or {})[file]
        manifest["models"] = [{"file": file, "bytes": len(model)}]
        (directory / file).write_bytes(model)
    (directory / "shard-000000.slc").write_bytes(data)
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return directory


def verify(path: Path) -> dict[str, Any]:
    """Deep verification of one shard. Raises sl.FormatError."""
    return verify_shard(path, core_models(path))


def contents(cache: sl.Cache) -> dict[str, Any]:
    """Sequences, tokens and records of a cache, as the reference decoder's `to_dict` has them."""
    everything = cache.read_sequences(np.arange(len(cache)))
    values = everything.weights if everything.counts is None else everything.counts
    entries = list(zip(everything.token_ids.tolist(), values.tolist(), strict=True))
    edges = everything.offsets.tolist()
    tokens = everything.input_ids
    return {
        "sequences": [
            [identity, f"{fingerprint:016x}", length]
            for identity, fingerprint, length in zip(
                cache.sequence_ids.tolist(),
                cache.fingerprints.tolist(),
                cache.sequence_lengths.tolist(),
                strict=True,
            )
        ],
        "tokens": None if tokens is None else tokens.tolist(),
        "records": [[list(entry) for entry in entries[a:b]] for a, b in itertools.pairwise(edges)],
    }


def decode_shard(path: Path, positions: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Tokens and records at these positions of a shard, which is verified first."""
    models = core_models(path)
    facts = verify_shard(path, models)
    row = (
        str(path),
        *(facts[name] for name in ("uuid", "bytes", "sequences", "positions", "entries")),
    )
    reader = _core.CacheReader([row], facts["config"], models, True)
    offsets, ids, counts, weights, tokens = reader.read_positions(positions)
    values = weights if counts is None else counts
    entries = list(zip(ids.tolist(), values.tolist(), strict=True))
    return {
        "tokens": None if tokens is None else tokens.tolist(),
        "records": [entries[a:b] for a, b in itertools.pairwise(offsets.tolist())],
    }
