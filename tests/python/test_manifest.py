"""A manifest that is not what the format promises is refused by field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from caches import random_sequence, write

import sparselogits as sl
from sparselogits.durable import replace_file
from sparselogits.manifest import parse_manifest, read_manifest

SCHEMA = Path(__file__).resolve().parents[2] / "formats" / "manifest.schema.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("manifest") / "c"
    write(path, [random_sequence(0)])
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    del manifest["crc32c"]  # of bytes that these tests change
    return manifest


def changed(good: dict[str, Any], where: str, value: Any) -> bytes:
    """The manifest with one member replaced, or removed where the value is ...."""
    copy = json.loads(json.dumps(good))
    parent: Any = copy
    *path, last = [int(key) if key.isdigit() else key for key in where.split("/")]
    for key in path:
        parent = parent[key]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return json.dumps(copy).encode()


MODEL = "model-00112233445566ff.slm"
OTHER_MODEL = "model-00112233445566fe.slm"
BAD_MODEL_NAMES = (
    *("../" + MODEL, "a/" + MODEL, "/" + MODEL, "." + MODEL, MODEL + "\n", MODEL.upper(), 1),
    *("model-0.slm", "model-0011223344556677889.slm", "shard-000000.slc", "manifest.json", None),
    *("model-00112233445566fg.slm", "model-00112233445566f\u0661.slm", MODEL + ".partial", ""),
)

BAD = [
    *(("format", v) for v in ("other", 1, ...)),
    *(("version", v) for v in ([1], [1, -1], ["1", 0], [1.0, 0], 1, ...)),
    *(("alignment", v) for v in ("position t holds token t", None, ...)),
    *(("complete", v) for v in (1, "true", ...)),
    *(("config", v) for v in ([], None, ...)),
    *(("config/vocab_size", v) for v in (0, 2**24 + 1, 1.5, "1", True, ...)),
    *(("config/rounds", v) for v in (0, 65536, ...)),
    *(("config/value_kind", v) for v in ("x", None, ...)),
    *(("config/temperature", v) for v in (0, -1, "1", ...)),
    ("config/tokenizer_fingerprint", "xyz"),
    ("config/sampler", "TOP K"),
    *(("metadata", v) for v in ([], {"a": 1}, {"a": None}, {"a": "x" * (1 << 20)}, ...)),
    ("metadata", {"\ud800": "a"}),
    *(("shards", v) for v in ({}, None, [1], [[]], ...)),
    *(
        ("shards/0/file", v)
        for v in ("../x.slc", "a/b.slc", "/x", ".hidden", "", "x\n", "é", "a\\b", "..", 1, ...)
    ),
    *(("shards/0/uuid", v) for v in ("", "0" * 31, "g" * 32, 1, ...)),
    *(("shards/0/sha256", v) for v in ("0" * 63, None, ...)),
    *(("shards/0/bytes", v) for v in (-1, 2**35 + 1, 1.0, True, "1", None, ...)),
    *(("shards/0/sequences", v) for v in (-1, 2**28 + 1, ...)),
    *(("shards/0/positions", v) for v in (-1, 2**32, ...)),
    *(("shards/0/entries", v) for v in (-1, 2**63, ...)),
    *(("models", v) for v in ({}, None, 1, [1], [[]], [{}])),
    *(("models", [{"file": v, "bytes": 1}]) for v in BAD_MODEL_NAMES),
    *(("models", [{"file": MODEL, "bytes": v}]) for v in (-1, 2**26 + 1, 1.0, True, "1", None)),
    ("models", [{"file": MODEL}]),
    ("models", [{"file": MODEL, "bytes": 1}, {"file": OTHER_MODEL, "bytes": 1}]),  # of one shard
]


@pytest.mark.parametrize("where, value", BAD)
def test_bad_fields(good: dict[str, Any], where: str, value: Any) -> None:
    with pytest.raises(sl.CorruptionError) as caught:
        parse_manifest(changed(good, where, value), "some/manifest.json")
    assert caught.value.path == "some/manifest.json"
    name = where.split("/")[-1]
    assert name in f"{caught.value.field} {caught.value.message}"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"1" * 10_000, "digits"),
        (b" " * ((1 << 26) + 1), "longer than"),
    ],
)
def test_what_is_no_manifest_at_all(data: bytes, message: str) -> None:
    with pytest.raises(sl.CorruptionError, match=message):
        parse_manifest(data, "m")


def test_errors_name_the_byte() -> None:
    with pytest.raises(sl.CorruptionError) as caught:
        parse_manifest('{"é": }'.encode(), "m")
    assert caught.value.offset == 7


@pytest.mark.parametrize("where, value", [("version", [2, 0]), ("config/codec", "zip")])
def test_what_a_later_release_may_write(good: dict[str, Any], where: str, value: Any) -> None:
    with pytest.raises(sl.UnsupportedError):
        parse_manifest(changed(good, where, value), "m")


@pytest.mark.parametrize(
    "where, value",
    [
        ("version", [1, 7]),
        ("news", {"a": [None]}),
        ("config/news", 1),
        ("shards/0/news", 1),
        ("config/tokenizer_fingerprint", "0000000000000000"),
        ("config/tokenizer_fingerprint", "ABCDEF0123456789"),
        ("config/temperature", 1),
    ],
)
def test_what_a_reader_accepts(good: dict[str, Any], where: str, value: Any) -> None:
    assert parse_manifest(changed(good, where, value), "m").config.rounds == 20


def test_models_are_listed_once_and_in_order(good: dict[str, Any]) -> None:
    rows = [{"file": name, "bytes": 1, "news": 2} for name in (MODEL, OTHER_MODEL)]
    shards = [{**good["shards"][0], "file": f"{i}.slc", "uuid": f"{i:032x}"} for i in range(2)]
    manifest = parse_manifest(changed({**good, "shards": shards}, "models", rows), "m")
    assert [row.file for row in manifest.models] == [OTHER_MODEL, MODEL]
    assert (manifest.model_bytes, manifest.cache_bytes) == (
        2,
        2 + manifest.num_bytes + sum(row.bytes for row in manifest.shards),
    )
    assert parse_manifest(manifest.to_bytes(), "m").models == manifest.models
    with pytest.raises(sl.CorruptionError, match=r"also that of models\[0\]") as caught:
        parse_manifest(changed({**good, "shards": shards}, "models", [rows[0], rows[0]]), "m")
    assert caught.value.field == "models[1].file"


def test_a_manifest_without_models_does_not_mention_them(good: dict[str, Any]) -> None:
    assert "models" not in good
    assert parse_manifest(changed(good, "models", []), "m").models == ()


@pytest.mark.parametrize("name", ["file", "uuid"])
def test_two_rows_of_one_shard(good: dict[str, Any], name: str) -> None:
    other = {**good["shards"][0], "file": "b.slc", "uuid": "1" * 32}
    other[name] = good["shards"][0][name]
    with pytest.raises(sl.CorruptionError, match=r"also that of shards\[0\]"):
        parse_manifest(changed(good, "shards", [good["shards"][0], other]), "m")


def test_follows_its_schema(good: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if not SCHEMA.exists():
        pytest.skip("no schema in this tree")
    jsonschema.validate(good, json.loads(SCHEMA.read_text()))


def test_links_may_not_lead_out(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    shard = tmp_path / "c" / "shard-000000.slc"
    shard.rename(tmp_path / "elsewhere.slc")
    shard.symlink_to(tmp_path / "elsewhere.slc")
    with pytest.raises(sl.CorruptionError, match="link out of the cache"):
        sl.open(tmp_path / "c")
    shard.unlink()
    (tmp_path / "elsewhere.slc").rename(tmp_path / "c" / "inside.slc")
    shard.symlink_to("inside.slc")
    assert len(sl.open(tmp_path / "c")) == 1
    (tmp_path / "link").symlink_to("c")
    assert len(sl.open(tmp_path / "link")) == 1


@pytest.mark.parametrize(
    "name, value", [("bytes", 1), ("sequences", 2), ("positions", 31), ("entries", 1)]
)
def test_shards_are_held_to_their_rows(tmp_path: Path, name: str, value: int) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["shards"][0][name] = value
    del manifest["crc32c"]
    path.write_text(json.dumps(manifest))
    with pytest.raises((sl.FormatError, sl.MismatchError), match=r"shard-000000\.slc"):
        sl.open(tmp_path / "c")


def test_shards_are_held_to_the_config(tmp_path: Path) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    manifest = read_manifest(tmp_path / "c")
    replace(manifest, config=replace(manifest.config, rounds=21)).write(tmp_path / "c")
    with pytest.raises((sl.FormatError, sl.MismatchError), match=r"rounds|config"):
        sl.open(tmp_path / "c")


def test_metadata_of_any_language_survives(tmp_path: Path) -> None:
    metadata = {"": "empty key", "ключ": "значение ☃ \U0001f600", "quote": '"\\\n\0'}
    with sl.CacheWriter(tmp_path / "c", sl.CacheConfig(vocab_size=5), metadata) as writer:
        writer.append([], [0], [], [])
    assert sl.open(tmp_path / "c").metadata == metadata
    (tmp_path / "c" / "manifest.json").unlink()
    sl.recover(tmp_path / "c")
    assert sl.open(tmp_path / "c").metadata == metadata


def test_replacing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "c", [random_sequence(0)])
    before = read_manifest(tmp_path / "c").digest

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(sl.CacheIOError, match="No space left"):
        replace_file(tmp_path / "c" / "manifest.json", b"half")
    assert read_manifest(tmp_path / "c").digest == before
    assert len(list((tmp_path / "c").iterdir())) == 2
