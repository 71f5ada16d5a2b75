"""`CacheFacts`: what an open cache says of itself."""

from __future__ import annotations

from sparselogits.codec_model import CodecModel
from sparselogits.config import CacheConfig
from sparselogits.manifest import Manifest
from sparselogits.shard_access import ShardAccess


class CacheFacts:
    """The part of `Cache` that reads no records."""

    def __init__(self, shards: ShardAccess) -> None:
        self._shards = shards
        self._manifest = shards.manifest
        self._models = tuple(map(CodecModel, shards.models))
        self._reader = shards.reader

    @property
    def path(self) -> str:
        """The absolute path of the directory, or the URL."""
        return self._shards.name

    @property
    def config(self) -> CacheConfig:
        return self._manifest.config

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self._manifest.metadata)

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every shard with its own: 64 hex digits."""
        return self._manifest.digest

    @property
    def complete(self) -> bool:
        """Whether a writer closed this cache; False while one is at work and after a recovery."""
        return self._manifest.complete

    @property
    def nbytes(self) -> int:
        """Bytes of all files of the cache: the manifest, the shards and the models."""
        return self._manifest.cache_bytes

    @property
    def models(self) -> tuple[CodecModel, ...]:
        """What the shards of a compact cache are coded with; empty where none needs one."""
        return self._models

    @property
    def num_sequences(self) -> int:
        return self._reader.num_sequences

    @property
    def num_positions(self) -> int:
        return self._reader.num_positions

    @property
    def num_entries(self) -> int:
        return self._reader.num_entries

    def __len__(self) -> int:
        return self._reader.num_sequences
