"""Every limit that Python needs. Those of shards come from the core, which has them once."""

from __future__ import annotations

from sparselogits import _core

_SHARD = _core.format_constants()["limits"]

MAX_VOCAB_SIZE: int = _SHARD["vocab_size"]
MAX_ROUNDS: int = _SHARD["rounds"]
MAX_SHARD_POSITIONS: int = _SHARD["positions_per_shard"]
MAX_SHARD_SEQUENCES: int = _SHARD["sequences_per_shard"]
MAX_SHARD_ENTRIES: int = _SHARD["entries_per_shard"]
MAX_SHARD_BYTES: int = _SHARD["shard_length"]
MAX_METADATA_BYTES: int = _SHARD["metadata_length"]

# Of the manifest (formats/v1.md, section 10).
MAX_MANIFEST_BYTES = 1 << 26
MAX_SHARDS = 1 << 20
MAX_MANIFEST_DEPTH = 16
MAX_MODEL_BYTES = 1 << 26
MAX_NUMBER_CHARACTERS = 1000  # of an integer in JSON: converting longer ones takes quadratic time

MAX_SEQUENCE_ID = (1 << 64) - 1
MAX_SAMPLED_POSITION = (1 << 48) - 1  # what a sampler's key has room for
