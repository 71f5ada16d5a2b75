"""`LocalShards`: the files of a cache in a directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

from sparselogits.cache_models import sound_models
from sparselogits.files_to_verify import FilesToVerify, files_in
from sparselogits.readable import readable_manifest
from sparselogits.sequence_table import SequenceTable
from sparselogits.shard_access import Integers, ShardBounds, check_digest
from sparselogits.shard_set import open_shards

T = TypeVar("T")


class LocalShards:
    """The shards in a directory: always there.

    Raises:
        FormatError, CacheIOError: The manifest, a model or a shard's structure is not sound.
        MismatchError: The cache has not this digest.
    """

    def __init__(self, directory: Path, verify_checksums: bool, digest: str | None) -> None:
        self.name = str(directory)
        self.model_directory = self.shard_directory = directory
        self.manifest = readable_manifest(directory)
        check_digest(self.name, self.manifest, digest)
        self.models = sound_models(directory, self.manifest)
        self.reader = open_shards(directory, self.manifest, verify_checksums, self.models)
        self.bounds = ShardBounds(self.manifest)

    def hold(self, numbers: Sequence[int], *, wait: bool = True) -> AbstractContextManager[object]:
        return nullcontext()

    def prefetch(self, indices: Integers) -> None:
        pass

    def renew(self, number: int) -> bool:
        return False

    def reading(self, numbers: Callable[[], Sequence[int]], read: Callable[[], T]) -> T:
        return read()

    def sequence_table(self) -> SequenceTable:
        return SequenceTable(*self.reader.sequence_table())

    def files_to_verify(self) -> FilesToVerify:
        return files_in(self.shard_directory, self.manifest.digest)
