"""The manifest: its schema, the reference decoder and the library refuse the same things."""

from __future__ import annotations

import copy
import json
import re
import shutil
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import reference_decoder
from golden import FORMATS, GOLDEN

import sparselogits as sl
from sparselogits.manifest import parse_manifest

SCHEMA = json.loads((FORMATS / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
MANIFEST = json.loads((GOLDEN / "valid" / "cache" / "manifest.json").read_text(encoding="utf-8"))


def test_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_golden_manifest():
    VALIDATOR.validate(MANIFEST)


def test_example_of_the_specification():
    text = (FORMATS / "v1.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", text, re.S)
    example = json.loads(re.sub(r"(\d+) hex digits", lambda match: "0" * int(match[1]), example))
    VALIDATOR.validate(example)


@pytest.mark.parametrize("kind", ["counts", "weights"])
def test_what_the_library_writes(tmp_path, kind):
    config = sl.CacheConfig(
        vocab_size=9, rounds=1, value_kind=kind, tokenizer_fingerprint="00ff" * 4
    )
    with sl.CacheWriter(tmp_path / "cache", config, {"ключ": "value"}) as writer:
        values = {kind: np.array([1], np.uint16 if kind == "counts" else np.float32)}
        writer.append(np.array([3]), np.array([0, 1]), np.array([4]), sequence_id=5, **values)
    VALIDATOR.validate(json.loads((tmp_path / "cache" / "manifest.json").read_text()))


# (path of the value, what it becomes; ... deletes it)
WRONG = [
    (("format",), "parquet"),
    (("format",), ...),
    (("version",), [2, 0]),
    (("version",), [1]),
    (("version",), "1.0"),
    (("alignment",), "position t holds the teacher's distribution of token t"),
    (("complete",), "yes"),
    (("config",), ...),
    (("config", "vocab_size"), 0),
    (("config", "vocab_size"), 2**24 + 1),
    (("config", "vocab_size"), "49152"),
    (("config", "rounds"), 65536),
    (("config", "rounds"), 49.5),
    (("config", "sampler"), "Multinomial"),
    (("config", "temperature"), 0),
    (("config", "temperature"), -1.0),
    (("config", "value_kind"), "floats"),
    (("config", "weight_dtype"), "float64"),
    (("config", "codec"), "zip"),
    (("config", "store_tokens"), 1),
    (("config", "tokenizer_fingerprint"), "abc"),
    (("config", "tokenizer_fingerprint"), ...),
    (("metadata",), {"teacher": 1}),
    (("metadata",), []),
    (("shards",), {}),
    (("shards", 0, "file"), "../shard-000000.slc"),
    (("shards", 0, "file"), "a/b.slc"),
    (("shards", 0, "file"), ".hidden"),
    (("shards", 0, "file"), ""),
    (("shards", 0, "uuid"), "0" * 31),
    (("shards", 0, "bytes"), -1),
    (("shards", 0, "positions"), 2**32),
    (("shards", 0, "sequences"), 1.5),
    (("shards", 0, "entries"), None),
    (("shards", 0, "entries"), 2**40 + 1),
    (("shards", 0, "sha256"), "z" * 64),
    (("shards", 0, "sha256"), ...),
]


def test_a_manifest_that_lists_models(tmp_path):
    config = sl.CacheConfig(vocab_size=9, rounds=1, codec="compact")
    packed = sl.CacheConfig(vocab_size=9, rounds=1)
    for name, given in (("packed", packed), ("compact", config)):
        model = sl.train_model(tmp_path / "packed") if name == "compact" else None
        with sl.CacheWriter(tmp_path / name, given, model=model) as writer:
            writer.append(np.array([3]), np.array([0, 1]), np.array([4]), np.array([1]))
    manifest = json.loads((tmp_path / "compact" / "manifest.json").read_text())
    VALIDATOR.validate(manifest)
    assert manifest["models"] == [{"file": model.file_name, "bytes": model.nbytes}]


# What no schema can see: the manifest does not describe these shards.
FOREIGN = [
    (("config", "vocab_size"), 49153),
    (("config", "rounds"), 51),
    (("config", "sampler"), "systematic"),
    (("config", "temperature"), 1.5),
    (("config", "store_tokens"), False),
    (("config", "tokenizer_fingerprint"), "1" * 16),
    (("shards", 0, "uuid"), "0" * 32),
    (("shards", 0, "bytes"), 1000),
    (("shards", 0, "sequences"), 1),
    (("shards", 0, "positions"), 5),
    (("shards", 0, "entries"), 1),
    (("shards", 0, "sha256"), "0" * 64),
    (("shards",), MANIFEST["shards"][:1] * 2),
]

MODEL = "model-0123456789abcdef.slm"
OTHER_NAMES = ("../" + MODEL, "." + MODEL, "model-0123456789ABCDEF.slm", "model-.slm", "", 1)
WRONG_MODELS = [
    (("models",), {}),
    (("models",), [1]),
    (("models",), [{"file": MODEL}]),
    (("models",), [{"bytes": 1}]),
    *((("models",), [{"file": MODEL, "bytes": size}]) for size in (-1, 1.5, 2**26 + 1, "1", None)),
    *((("models",), [{"file": file, "bytes": 1}]) for file in OTHER_NAMES),
]
# What no schema can see: models that are not there, or are more than the shards.
FOREIGN_MODELS = [
    (("models",), [{"file": MODEL, "bytes": 1}]),
    (("models",), [{"file": MODEL, "bytes": 1}] * 2),
]


def changed(where, value):
    manifest = copy.deepcopy(MANIFEST)
    del manifest["crc32c"]  # of bytes that are other ones now
    parent = manifest
    for key in where[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[where[-1]]
    else:
        parent[where[-1]] = value
    return manifest


@pytest.fixture
def cache(tmp_path):
    return shutil.copytree(GOLDEN / "valid" / "cache", tmp_path / "cache")


def refuse(cache, manifest):
    (cache / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(reference_decoder.FormatError):
        reference_decoder.decode(cache)
    library_refuses(cache)


def library_refuses(cache):
    with pytest.raises(sl.SparseLogitsError) as caught:
        sl.open(cache).verify()
    assert isinstance(caught.value, (sl.FormatError, sl.MismatchError, sl.CacheIOError))
    assert str(cache) in str(caught.value)


@pytest.mark.parametrize("where,value", WRONG, ids=str)
def test_wrong_manifests(cache, where, value):
    manifest = changed(where, value)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(manifest)
    refuse(cache, manifest)


@pytest.mark.parametrize("where,value", FOREIGN, ids=str)
def test_manifests_of_other_shards(cache, where, value):
    manifest = changed(where, value)
    VALIDATOR.validate(manifest)
    refuse(cache, manifest)


@pytest.mark.parametrize("where,value", WRONG_MODELS + FOREIGN_MODELS, ids=str)
def test_wrong_models(cache, where, value):
    manifest = changed(where, value)
    if (where, value) in WRONG_MODELS:
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(manifest)
    else:
        VALIDATOR.validate(manifest)
    (cache / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    library_refuses(cache)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "sparselogits"}', "\ufeff{}"])
def test_not_a_manifest(cache, text):
    (cache / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(reference_decoder.Corruption):
        reference_decoder.decode(cache)
    with pytest.raises(sl.CorruptionError):
        sl.open(cache)


def test_unknown_keys_are_ignored(cache):
    manifest = changed(("config", "new"), 1) | {"newer": {"a": []}, "version": [1, 7]}
    VALIDATOR.validate(manifest)
    (cache / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert len(reference_decoder.decode(cache)["shards"]) == 2
    sl.open(cache).verify()


def test_every_flipped_bit_of_the_manifest_is_refused_or_changes_nothing(cache):
    path = cache / "manifest.json"
    data = path.read_bytes()
    harmless = 0
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        for parse in (
            reference_decoder.decode_manifest,
            lambda text: parse_manifest(text, "manifest.json"),
        ):
            try:
                found = parse(bytes(broken))
            except (reference_decoder.FormatError, sl.FormatError):
                continue
            harmless += 1
            if isinstance(found, dict):
                assert {name: found[name] for name in MANIFEST if name != "crc32c"} == {
                    name: MANIFEST[name] for name in MANIFEST if name != "crc32c"
                }
            else:
                assert replace(found, digest="") == replace(
                    parse_manifest(data, "manifest.json"), digest=""
                )
    # The bits of the member's own name, and white space that stays white space.
    assert harmless < 2 * 8 * len('"crc32c": \n\n')


def test_the_checksum_is_the_last_member(cache):
    text = (cache / "manifest.json").read_text(encoding="utf-8")
    for broken, reason in [
        (text.replace('{\n  "format"', '{"crc32c": "00000000",\n  "format"', 1), "twice"),
        (text.removesuffix("\n}\n") + ', "more": 1}', "must be the last member"),
        (text.replace('"crc32c"', '"\\u0063rc32c"'), "must be the last member"),
        (text.replace("golden", "gilded"), "the manifest is damaged, or was edited"),
    ]:
        (cache / "manifest.json").write_text(broken, encoding="utf-8")
        with pytest.raises(sl.CorruptionError, match=reason):
            sl.open(cache)
