"""JSON that nobody vouches for, taken apart into the fields of a manifest."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import fields
from typing import Any, TypeVar

from sparselogits import _core
from sparselogits.config import CODECS, CacheConfig
from sparselogits.errors import CorruptionError, UnsupportedError
from sparselogits.limits import (
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_DEPTH,
    MAX_METADATA_BYTES,
    MAX_MODEL_BYTES,
    MAX_NUMBER_CHARACTERS,
    MAX_SHARD_BYTES,
    MAX_SHARD_ENTRIES,
    MAX_SHARD_POSITIONS,
    MAX_SHARD_SEQUENCES,
    MAX_SHARDS,
)

MODEL_FILE = re.compile(r"model-[0-9a-f]{16}\.slm")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_HEX = {"uuid": re.compile(r"[0-9a-f]{32}"), "sha256": re.compile(r"[0-9a-f]{64}")}
_ROW_LIMITS = {
    "bytes": MAX_SHARD_BYTES,
    "sequences": MAX_SHARD_SEQUENCES,
    "positions": MAX_SHARD_POSITIONS,
    "entries": MAX_SHARD_ENTRIES,
}
# The META frame follows the header of a shard.
_META_OFFSET = _core.format_constants()["header_length"]
_CONFIG_FIELDS = frozenset(field.name for field in fields(CacheConfig))
_MAX_CONFIG_TEXT = 255
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 2
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}

T = TypeVar("T")


class ManifestParser:
    """Checks of single fields; every error names the file and the field.

    Args:
        path: The file, for errors.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def load(self, data: bytes) -> dict[str, Any]:
        """The JSON object in `data`, with repeated keys, NaN and excessive nesting refused."""
        self.check_length(len(data))
        if not data:
            raise self._corrupt("manifest", "is empty")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._corrupt("manifest", "is not UTF-8", error.start) from error
        try:
            root = json.loads(
                text,
                object_pairs_hook=self._unique,
                parse_constant=self._refuse_constant,
                parse_int=self._integer,
            )
        except json.JSONDecodeError as error:
            offset = len(text[: error.pos].encode("utf-8"))
            raise self._corrupt("manifest", f"is not JSON: {error.msg}", offset) from error
        except RecursionError as error:
            raise self._too_deep() from error
        if not isinstance(root, dict):
            raise self._corrupt("manifest", "must be an object")
        self._check_depth(root)
        return root

    def check_length(self, length: int) -> None:
        """Refuses a file that is too long, before it is read where its length is known before."""
        if length > MAX_MANIFEST_BYTES:
            raise self._corrupt("manifest", f"is longer than {MAX_MANIFEST_BYTES} bytes")

    def member(self, parent: dict[str, Any], name: str, kind: type[T], where: str = "") -> T:
        """A required member of an object, of exactly one JSON type."""
        field = f"{where}.{name}" if where else name
        if name not in parent:
            raise self._corrupt(field, "is missing")
        value = parent[name]
        if type(value) is not kind:
            raise self._corrupt(field, f"must be {_KINDS[kind]}, not {_shown(value)}")
        return value

    def check_identity(self, root: dict[str, Any], major: int, alignment: str) -> None:
        """The three fields that say what the rest means."""
        found = self.member(root, "format", str)
        if found != "sparselogits":
            raise self._corrupt("format", f"must be 'sparselogits', not {_shown(found)}")
        version = self.member(root, "version", list)
        if len(version) != 2 or any(type(part) is not int or part < 0 for part in version):
            raise self._corrupt("version", f"must be two integers, not {_shown(version)}")
        if version[0] != major:
            raise UnsupportedError(
                f"version {version[0]}.{version[1]} is not one that this release knows; "
                f"it reads version {major}",
                self._path,
                None,
                "version",
            )
        if self.member(root, "alignment", str) != alignment:
            raise self._corrupt("alignment", f"must be {alignment!r}")

    def config(self, root: dict[str, Any]) -> dict[str, Any]:
        """The members of `config`, each of them a short scalar; what they mean is not checked."""
        config = self.member(root, "config", dict)
        for name, value in config.items():
            if name in _CONFIG_FIELDS and (
                isinstance(value, (dict, list))
                or (isinstance(value, str) and len(value) > _MAX_CONFIG_TEXT)
            ):
                raise self._corrupt(f"config.{name}", f"must not be {_shown(value)}")
        return config

    def check_crc(self, root: dict[str, Any], data: bytes) -> None:
        """The checksum of the bytes before it. Who edits a manifest by hand takes it out."""
        if "crc32c" not in root:
            return
        stated = self.member(root, "crc32c", str)
        start = data.rfind(b'"crc32c"')
        if next(reversed(root)) != "crc32c" or start < 0:
            raise self._corrupt("crc32c", "must be the last member")
        found = f"{_core.crc32c(data[:start]):08x}"
        if stated != found:
            raise self._corrupt(
                "crc32c",
                f"is {_shown(stated)}, but the bytes before it have {found!r}: the manifest is "
                "damaged, or was edited (then delete this member)",
                start,
            )

    def check_codec(self, config: dict[str, Any]) -> None:
        """A codec of a later release is no corruption."""
        codec = self.member(config, "codec", str, "config")
        if codec not in CODECS:
            raise UnsupportedError(
                f"codec {_shown(codec)} is not one that this release can read",
                self._path,
                None,
                "config.codec",
            )

    def metadata(self, root: dict[str, Any]) -> dict[str, str]:
        """The user's str → str facts."""
        metadata = self.member(root, "metadata", dict)
        size = 0
        for key, value in metadata.items():
            field = f"metadata.{_shown(key)}"
            if type(value) is not str:
                raise self._corrupt(field, f"must be a string, not {_shown(value)}")
            try:
                size += len(key.encode("utf-8")) + len(value.encode("utf-8"))
            except UnicodeEncodeError as error:
                raise self._corrupt(field, "is not valid Unicode") from error
        if size > MAX_METADATA_BYTES:
            raise self._corrupt("metadata", f"is longer than {MAX_METADATA_BYTES} bytes")
        return metadata

    def shards(self, root: dict[str, Any]) -> list[Any]:
        """The rows, unchecked."""
        rows = self.member(root, "shards", list)
        if len(rows) > MAX_SHARDS:
            raise self._corrupt("shards", f"must be at most {MAX_SHARDS}, got {len(rows)}")
        return rows

    def shard_row(self, row: Any, where: str) -> dict[str, Any]:
        """One checked row, without unknown keys."""
        if type(row) is not dict:
            raise self._corrupt(where, f"must be an object, not {_shown(row)}")
        fields: dict[str, Any] = {"file": self.member(row, "file", str, where)}
        if not _FILE.fullmatch(fields["file"]):
            raise self._corrupt(
                f"{where}.file",
                f"must be a plain name (letters, digits, . _ -), not {_shown(fields['file'])}",
            )
        for name, pattern in _HEX.items():
            fields[name] = self.member(row, name, str, where)
            if not pattern.fullmatch(fields[name]):
                raise self._corrupt(f"{where}.{name}", f"is not hex: {_shown(fields[name])}")
        for name, limit in _ROW_LIMITS.items():
            fields[name] = self._number(row, name, limit, where)
        return fields

    def models(self, root: dict[str, Any], num_shards: int) -> list[dict[str, Any]]:
        """The checked rows of `models`, without unknown keys; none where the member is absent."""
        if "models" not in root:
            return []
        rows = self.member(root, "models", list)
        if len(rows) > num_shards:
            raise self._corrupt(
                "models", f"must be at most one a shard, got {len(rows)} for {num_shards} shards"
            )
        return [self._model_row(row, f"models[{index}]") for index, row in enumerate(rows)]

    def _model_row(self, row: Any, where: str) -> dict[str, Any]:
        if type(row) is not dict:
            raise self._corrupt(where, f"must be an object, not {_shown(row)}")
        file = self.member(row, "file", str, where)
        if not MODEL_FILE.fullmatch(file):
            raise self._corrupt(
                f"{where}.file", f"must be model-<16 hex digits>.slm, not {_shown(file)}"
            )
        return {"file": file, "bytes": self._number(row, "bytes", MAX_MODEL_BYTES, where)}

    def _number(self, row: dict[str, Any], name: str, limit: int, where: str) -> int:
        value = row.get(name)
        if type(value) is not int or not 0 <= value <= limit:
            raise self._corrupt(
                f"{where}.{name}", f"must be an integer from 0 to {limit}, not {_shown(value)}"
            )
        return value

    def _check_depth(self, root: Any) -> None:
        # Level by level, unknown members too: recursion would need the very limit that it checks.
        level = [root]
        for _ in range(MAX_MANIFEST_DEPTH):
            level = [
                value
                for container in level
                for value in (container.values() if isinstance(container, dict) else container)
                if isinstance(value, (dict, list))
            ]
        if level:
            raise self._too_deep()

    def _too_deep(self) -> CorruptionError:
        return self._corrupt("manifest", f"is nested deeper than {MAX_MANIFEST_DEPTH} levels")

    def _integer(self, digits: str) -> int:
        if len(digits) > MAX_NUMBER_CHARACTERS:
            raise self._corrupt("manifest", f"holds an integer of {len(digits)} digits")
        return int(digits)

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                raise self._corrupt("manifest", f"has the key {_shown(key)} twice")
            members[key] = value
        return members

    def _refuse_constant(self, word: str) -> Any:
        raise self._corrupt("manifest", f"holds {word}, which JSON does not have")

    def _corrupt(self, field: str, message: str, offset: int | None = None) -> CorruptionError:
        return CorruptionError(message, self._path, offset, field)


def shard_metadata(path: str, content: bytes) -> dict[str, str]:
    """The metadata that a shard repeats in its META frame.

    Raises:
        CorruptionError: It is not a JSON object of strings; the field is `metadata`.
    """
    parser = ManifestParser(path)
    try:
        return parser.metadata({"metadata": parser.load(content)})
    except CorruptionError as error:
        raise CorruptionError(error.message, path, _META_OFFSET, "metadata") from error


def _shown(value: Any) -> str:
    # What a hostile file says must not flood a terminal, nor memory on its way there.
    text = _SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
