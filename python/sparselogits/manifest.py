"""The manifest: the small JSON file that makes a directory a cache (formats/v1.md, section 8)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparselogits import _core
from sparselogits.config import CacheConfig
from sparselogits.durable import io_error, replace_file
from sparselogits.errors import CacheIOError, CorruptionError, InvalidArgumentError
from sparselogits.limits import MAX_MANIFEST_BYTES, MAX_METADATA_BYTES, MAX_SHARDS
from sparselogits.manifest_parser import ManifestParser
from sparselogits.plain_file import plain_file

MANIFEST_NAME = "manifest.json"
VERSION = (1, 0)
ALIGNMENT = "position t holds the teacher's distribution of token t+1 given tokens <= t"


@dataclass(frozen=True)
class ShardRow:
    """One shard as the manifest names it.

    Attributes:
        file: Plain name inside the directory.
        uuid: 32 hex digits, as in the shard's header.
        bytes: Length of the file.
        sequences, positions, entries: What the shard holds.
        sha256: Of the whole file, 64 hex digits.
    """

    file: str
    uuid: str
    bytes: int
    sequences: int
    positions: int
    entries: int
    sha256: str


@dataclass(frozen=True, order=True)
class ModelRow:
    """One model of the `compact` codec as the manifest names it.

    Attributes:
        file: `model-<digest>.slm`, where the digest is the xxh64 of the file, 16 hex digits.
        bytes: Length of the file.
    """

    file: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest. The order of `shards` is the order of the cache.

    Attributes:
        config: As every shard's header repeats it.
        metadata: The user's facts.
        shards: One row a shard.
        models: Those that the shards need, in ascending order of their names.
        complete: False while a writer is at work and after a recovery.
        digest: SHA-256 of the bytes it was parsed from, hex; empty for one not read from a file.
        num_bytes: Length of those bytes.
    """

    config: CacheConfig
    metadata: dict[str, str]
    shards: tuple[ShardRow, ...] = ()
    complete: bool = False
    digest: str = ""
    num_bytes: int = 0
    models: tuple[ModelRow, ...] = ()

    @property
    def model_bytes(self) -> int:
        """Bytes of all models."""
        return sum(row.bytes for row in self.models)

    @property
    def cache_bytes(self) -> int:
        """Bytes of all files of the cache: of the manifest itself, the shards and the models."""
        return self.num_bytes + sum(row.bytes for row in self.shards) + self.model_bytes

    def to_bytes(self) -> bytes:
        """The file's content: stable, so that equal manifests have equal digests. Its last member
        is the checksum of all before."""
        fields: dict[str, Any] = {
            "format": "sparselogits",
            "version": list(VERSION),
            "alignment": ALIGNMENT,
            "complete": self.complete,
            "config": self.config.to_dict(),
            "metadata": self.metadata,
            "shards": [asdict(row) for row in self.shards],
        }
        if self.models:
            fields["models"] = [asdict(row) for row in self.models]
        checked = json.dumps(fields, indent=1).removesuffix("\n}").encode("ascii") + b",\n "
        return checked + f'"crc32c": "{_core.crc32c(checked):08x}"\n}}\n'.encode("ascii")

    def write(self, directory: Path) -> None:
        """Replaces the manifest of a cache as a whole, durably.

        Raises:
            CacheIOError: The system refused, or the manifest would be longer than its limits
                allow. The old manifest is untouched.
        """
        path, data = directory / MANIFEST_NAME, self.to_bytes()
        if len(data) > MAX_MANIFEST_BYTES or len(self.shards) > MAX_SHARDS:
            raise CacheIOError(
                errno.EFBIG,
                f"a manifest of {len(self.shards)} shards and {len(data)} bytes is above the "
                f"limits {MAX_SHARDS} and {MAX_MANIFEST_BYTES}: use larger shards",
                str(path),
            )
        replace_file(path, data)


def read_manifest(directory: Path) -> Manifest:
    """Reads and checks the manifest of a cache.

    Raises:
        CacheIOError: There is none, or it cannot be read.
        FormatError: It is not what the format promises; the error names the field.
    """
    path = plain_file(directory, MANIFEST_NAME, "manifest")
    try:
        with path.open("rb") as file:
            ManifestParser(str(path)).check_length(os.fstat(file.fileno()).st_size)
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise io_error(error, "cannot read the manifest", path) from error
    return parse_manifest(data, str(path))


def parse_manifest(data: bytes, path: str) -> Manifest:
    """The manifest in `data`; `path` is for errors.

    Raises:
        CorruptionError: Not a manifest, or a value is wrong or beyond a limit.
        UnsupportedError: A major version or codec that this release does not know.
    """
    parser = ManifestParser(path)
    root = parser.load(data)
    parser.check_identity(root, VERSION[0], ALIGNMENT)
    parser.check_crc(root, data)
    rows = tuple(
        ShardRow(**parser.shard_row(row, f"shards[{index}]"))
        for index, row in enumerate(parser.shards(root))
    )
    for name in ("file", "uuid"):
        _refuse_repeats(path, "shards", name, [getattr(row, name) for row in rows])
    models = tuple(ModelRow(**row) for row in parser.models(root, len(rows)))
    _refuse_repeats(path, "models", "file", [row.file for row in models])
    config = parser.config(root)
    parser.check_codec(config)
    try:
        cache_config = CacheConfig.from_dict(config)
    except InvalidArgumentError as error:
        raise CorruptionError(str(error), path, None, "config") from error
    return Manifest(
        config=cache_config,
        metadata=parser.metadata(root),
        shards=rows,
        complete=parser.member(root, "complete", bool),
        digest=manifest_digest(data),
        num_bytes=len(data),
        models=tuple(sorted(models)),
    )


def manifest_digest(data: bytes) -> str:
    """What stands for every byte of a cache: the SHA-256 of its manifest, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A caller's metadata, checked.

    Raises:
        InvalidArgumentError: Not str → str, text that UTF-8 cannot hold, or above 1 MiB as JSON.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidArgumentError(f"metadata must map str to str, got {type(metadata).__name__}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidArgumentError(f"metadata must map str to str, got {key!r}: {value!r}")
    checked = dict(metadata)
    try:
        size = len(metadata_json(checked))
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"metadata is not valid Unicode: {error}") from error
    if size > MAX_METADATA_BYTES:
        raise InvalidArgumentError(
            f"metadata must be at most {MAX_METADATA_BYTES} bytes as JSON, got {size}"
        )
    return checked


def metadata_json(metadata: Mapping[str, str]) -> bytes:
    """The content of a META frame."""
    return json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def shard_path(directory: Path, file: str) -> Path:
    """Where a shard lies. A link may stand in for it only if it stays inside the cache.

    Raises:
        CorruptionError: The file is a link out of the directory, or no regular file.
        CacheIOError: It does not exist.
    """
    return plain_file(directory, file, "shard")


def _refuse_repeats(path: str, member: str, name: str, values: list[str]) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            raise CorruptionError(
                f"{value!r} is also that of {member}[{seen[value]}]",
                path,
                None,
                f"{member}[{index}].{name}",
            )
        seen[value] = index
