"""litdata: chunks of records, and one index.json."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["DISABLE_VERSION_CHECK"] = "1"  # or `optimize` asks PyPI for a newer litdata

from litdata import StreamingDataset, optimize
from litdata.utilities.encryption import Encryption, FernetEncryption
from records import FILE_RECORDS, Source
from small_disk import mount_small

from adapters.base import Adapter, Range
from adapters.item_offsets import item_ranges

_SHARED_MEMORY = 1 << 24


class Litdata(Adapter):
    """Written by one worker, read where it lies."""

    name = "litdata"
    package = "litdata"
    settings = "defaults; `optimize(num_workers=1)`, `StreamingDataset(dir)`"
    appending = "`optimize(use_checkpoint=True)` again with the same inputs"
    # A file that is too short or missing is waited for, 2 s each.
    fewer = {"truncated": 12, "files exchanged": 12}  # noqa: RUF012
    encryption: Encryption | None = None
    use_checkpoint = False

    def write(self, path: Path, source: Source) -> None:
        mount_small(Path("/dev/shm"), _SHARED_MEMORY)  # for what a killed worker leaves
        for kind in ("", "DATA_"):
            os.environ[f"DATA_OPTIMIZER_{kind}CACHE_FOLDER"] = str(path.parent / "cache")
        optimize(
            lambda index: source[index].encoded,
            list(range(len(source))),
            str(path),
            chunk_bytes=FILE_RECORDS * (self._item_bytes(source) + 200),
            encryption=self.encryption,
            num_workers=1,
            start_method="fork",
            use_checkpoint=self.use_checkpoint,
            verbose=False,
        )
        source.progress.append(len(source))

    def read(self, path: Path) -> Iterator[bytes]:
        dataset = StreamingDataset(str(path), encryption=self.encryption)
        for index in range(len(dataset)):
            yield bytes(dataset[index])

    def data_files(self, path: Path) -> list[Path]:
        return sorted(path.glob("chunk-*.bin"))

    def index_files(self, path: Path) -> list[Path]:
        return [path / "index.json"]

    def units(self, file: Path) -> list[list[Range]]:
        return [item_ranges(file)]

    def resume(self, path: Path, source: Source) -> None:
        self.write(path, source)

    def _item_bytes(self, source: Source) -> int:
        data = source[0].encoded
        return len(data if self.encryption is None else self.encryption.encrypt(data))


class LitdataEncrypted(Litdata):
    """Has no checksums, but an encryption that authenticates each record."""

    name = "litdata, encrypted"
    settings = '`encryption=FernetEncryption(level="sample")`; written with `use_checkpoint=True`'
    encryption = FernetEncryption("a password", level="sample")
    use_checkpoint = True
    writes = True


ADAPTERS = [Litdata(), LitdataEncrypted()]
