"""MDS, the format of mosaicml-streaming: shards of records, and one index.json."""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

from records import FILE_RECORDS, Source
from small_disk import mount_small

from adapters.base import Adapter, Range
from adapters.item_offsets import item_ranges

# The image datasets of `streaming` import torchvision, whose PyPI build does not load beside a
# CPU build of torch. No format depends on them.
sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")

from streaming import MDSWriter, StreamingDataset  # noqa: E402

_SHARED_MEMORY = 1 << 24
_COLUMNS = {"record": "bytes"}


class Mds(Adapter):
    """Downloaded from a remote directory, as in training."""

    name = "MDS"
    package = "mosaicml-streaming"
    settings = "defaults; `StreamingDataset(remote=…, local=…)`"
    most = 100  # each opening makes shared memory and a process that watches it
    appending = "none: `MDSWriter` refuses a directory that is not empty"
    hashes: list[str] | None = None
    validate_hash: str | None = None
    local_only = False

    def write(self, path: Path, source: Source) -> None:
        limit = FILE_RECORDS * (len(source[0].encoded) + 200)
        with MDSWriter(
            columns=_COLUMNS, out=str(path), hashes=self.hashes, size_limit=limit
        ) as writer:
            for record in source:
                writer.write({"record": record.encoded})

    def read(self, path: Path) -> Iterator[bytes]:
        # Shared memory that nobody sees and that ends with the trial, whatever happens to it:
        # what a killed reader leaves makes every later opening slower.
        mount_small(Path("/dev/shm"), _SHARED_MEMORY)
        tempfile.tempdir = str(path.parent)  # for its lock files
        if self.local_only:
            remote, local = None, str(path)
        else:
            remote, local = str(path), tempfile.mkdtemp()
        dataset = StreamingDataset(
            remote=remote, local=local, validate_hash=self.validate_hash, batch_size=1
        )
        for index in range(len(dataset)):
            yield dataset[index]["record"]

    def data_files(self, path: Path) -> list[Path]:
        return sorted(path.glob("*.mds"))

    def index_files(self, path: Path) -> list[Path]:
        return [path / "index.json"]

    def units(self, file: Path) -> list[list[Range]]:
        return [item_ranges(file)]

    def resume(self, path: Path, source: Source) -> None:
        self.write(path, source)


class MdsHashed(Mds):
    """With the hash of every shard compared when it is downloaded."""

    name = "MDS, hashes"
    settings = '`hashes=["xxh64"]`, `validate_hash="xxh64"`; `remote=…, local=…`'
    hashes = ["xxh64"]  # noqa: RUF012
    validate_hash = "xxh64"
    writes = True


class MdsHashedLocal(MdsHashed):
    """The same dataset where it is local already."""

    name = "MDS, hashes, local"
    settings = '`hashes=["xxh64"]`, `validate_hash="xxh64"`; `local=…` alone'
    local_only = True
    writes = False


ADAPTERS = [Mds(), MdsHashed(), MdsHashedLocal()]
