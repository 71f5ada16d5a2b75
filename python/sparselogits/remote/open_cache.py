"""`RemotePlace`: where a remote cache is and how it is read; `RemoteCache`: one that is open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sparselogits.checks import integer
from sparselogits.errors import CacheIOError, FormatError, InvalidArgumentError
from sparselogits.files_to_verify import FilesToVerify, check_unchanged
from sparselogits.limits import MAX_MANIFEST_BYTES
from sparselogits.manifest import MANIFEST_NAME, Manifest, parse_manifest
from sparselogits.remote.fetch_models import fetch_models
from sparselogits.remote.forks import process_lock, this_process
from sparselogits.remote.local_store import LocalStore
from sparselogits.remote.location import Location
from sparselogits.remote.remote_files import RemoteFiles
from sparselogits.remote.remote_shards import Lease, RemoteShards
from sparselogits.remote.sequence_index import sequence_table
from sparselogits.sequence_table import SequenceTable
from sparselogits.shard_access import Integers, ShardBounds, check_digest
from sparselogits.shard_set import shard_reader

DEFAULT_LOCAL_BYTES = 1 << 36  # 64 GiB
DEFAULT_FETCHERS = 4
_MAX_LOCAL_BYTES = 1 << 62
_MAX_FETCHERS = 256
_ENVIRONMENT = "SPARSELOGITS_CACHE"

T = TypeVar("T")


@dataclass(frozen=True)
class RemotePlace:
    """Picklable, and all that is needed to open the cache again.

    Attributes:
        location: The URL.
        root: The local directory.
        max_bytes: What the shards in it may add up to.
        num_fetchers: Shards fetched at a time.
    """

    location: Location
    root: Path
    max_bytes: int
    num_fetchers: int


def remote_place(
    url: str,
    local_cache: str | os.PathLike[str] | None,
    local_cache_bytes: int | None,
    storage_options: Mapping[str, Any] | None,
    num_fetchers: int | None,
) -> RemotePlace:
    """The arguments of `sparselogits.open` for a URL, checked.

    Raises:
        InvalidArgumentError: One of them is wrong.
    """
    if local_cache is None:
        root = _default_root()
    elif isinstance(local_cache, (str, os.PathLike)) and "://" not in os.fspath(local_cache):
        root = Path(os.path.abspath(local_cache))
    else:
        raise InvalidArgumentError(f"local_cache must be a local directory, got {local_cache!r}")
    size = DEFAULT_LOCAL_BYTES if local_cache_bytes is None else local_cache_bytes
    fetchers = DEFAULT_FETCHERS if num_fetchers is None else num_fetchers
    return RemotePlace(
        Location(url, storage_options),
        root,
        integer("local_cache_bytes", size, 1, _MAX_LOCAL_BYTES),
        integer("num_fetchers", fetchers, 1, _MAX_FETCHERS),
    )


def _default_root() -> Path:
    if named := os.environ.get(_ENVIRONMENT):
        return Path(os.path.abspath(named))
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sparselogits"


class RemoteCache:
    """The files of an open remote cache: see `ShardAccess`.

    What has locks, threads or connections belongs to one process, and is made when it is first
    needed there: a forked child makes its own.

    Raises:
        CacheIOError: There is no cache, or it cannot be fetched.
        FormatError: The manifest or a model is damaged.
        MismatchError: The cache has not this digest.
        InvalidArgumentError: A package that the URL needs is missing.
    """

    def __init__(self, place: RemotePlace, verify_checksums: bool, digest: str | None) -> None:
        self.name = place.location.url
        self._place = place
        files = RemoteFiles(place.location)
        self.manifest = _fetch_manifest(files)
        check_digest(self.name, self.manifest, digest)
        store = LocalStore(place.root, place.max_bytes)
        self.model_directory = store.folder(self.manifest.digest)
        self.shard_directory = self.model_directory / "shards"
        self.models = fetch_models(files, self.manifest, store)
        self.reader = shard_reader(
            [str(self.shard_directory / row.file) for row in self.manifest.shards],
            self.manifest,
            verify_checksums,
            self.models,
            come_and_go=True,
        )
        self.bounds = ShardBounds(self.manifest)
        self._here = (this_process(), self._shards(files, store))

    def hold(self, numbers: Sequence[int], *, wait: bool = True) -> Lease | None:
        return self._of_this_process().hold(numbers, wait=wait)

    def prefetch(self, indices: Integers) -> None:
        self._of_this_process().prefetch(self.bounds.of_sequences(indices))

    def renew(self, number: int) -> bool:
        return self._of_this_process().renew(number)

    def reading(self, numbers: Callable[[], Sequence[int]], read: Callable[[], T]) -> T:
        held = numbers()
        with self._hold(held):
            try:
                return read()
            except (FormatError, CacheIOError):
                renewed = [self.renew(number) for number in held]
                if not any(renewed):
                    raise  # the cache itself is damaged, and not a copy that is damaged or gone
                return read()

    def sequence_table(self) -> SequenceTable:
        return sequence_table(
            RemoteFiles(self._place.location),
            self.manifest,
            self.models,
            LocalStore(self._place.root, self._place.max_bytes),
            self._place.num_fetchers,
        )

    def files_to_verify(self) -> FilesToVerify:
        manifest = _fetch_manifest(RemoteFiles(self._place.location))
        check_unchanged(self.name, manifest, self.manifest.digest)
        return FilesToVerify(
            manifest,
            self._place.location.file_url(MANIFEST_NAME),
            self.model_directory,
            self.shard_directory,
            hold=self._hold,
            renew=self.renew,
            unlisted=tuple,
        )

    def _hold(self, numbers: Sequence[int]) -> Lease:
        lease = self.hold(numbers)
        assert lease is not None  # because it waits
        return lease

    def _of_this_process(self) -> RemoteShards:
        process, shards = self._here
        if process is this_process():
            return shards
        with process_lock():
            if self._here[0] is not this_process():
                files = RemoteFiles(self._place.location)
                store = LocalStore(self._place.root, self._place.max_bytes)
                for number in range(len(self.manifest.shards)):  # what the parent had mapped
                    self.reader.dismiss(number)
                self._here = (this_process(), self._shards(files, store))
            return self._here[1]

    def _shards(self, files: RemoteFiles, store: LocalStore) -> RemoteShards:
        return RemoteShards(files, self.manifest, store, self.reader, self._place.num_fetchers)


def _fetch_manifest(files: RemoteFiles) -> Manifest:
    files.forget_listings()
    try:
        data = files.read_all(MANIFEST_NAME, MAX_MANIFEST_BYTES)
    except CacheIOError as error:
        if error.errno != errno.ENOENT:
            raise
        raise CacheIOError(
            errno.ENOENT, "holds no cache: there is no manifest.json", files.location.url
        ) from error
    return parse_manifest(data, files.location.file_url(MANIFEST_NAME))
