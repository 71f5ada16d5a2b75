"""The library against the golden files: identical content, and the same refusals."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import reference_decoder
from golden import GOLDEN, INVALID, SHARDS, expected, same
from library import agrees, contents, core_models, make_cache, verify
from reference_decoder import FOOTER, FOOTER_MAGIC, FRAME, HEADER, models_beside

import sparselogits as sl
from sparselogits import _core

AT_CONTENT = ("reserved", "content_length", "num_entries")  # or what contradicts them
ERRORS = {
    "Corruption": sl.CorruptionError,
    "Truncated": sl.TruncatedError,
    "Unsupported": sl.UnsupportedError,
}


@pytest.mark.parametrize("path", SHARDS, ids=lambda path: path.stem)
def test_valid(path, tmp_path):
    data = path.read_bytes()
    want = expected(path)
    models = models_beside(path)
    shard = reference_decoder.decode_shard(data, models)
    cache = sl.open(make_cache(tmp_path / "cache", data, shard, models))
    cache.verify()
    assert cache.metadata == want["metadata"]
    want = {name: want[name] for name in ("sequences", "tokens", "records")}
    assert same(contents(cache), want)


def test_valid_cache():
    cache = sl.open(GOLDEN / "valid" / "cache")
    cache.verify()
    want = expected(GOLDEN / "valid" / "cache")
    found = contents(cache)
    for name, values in found.items():
        assert values == [value for shard in want["shards"] for value in shard[name]]
    config = want["manifest"]["config"]
    assert {name: getattr(cache.config, name) for name in config} == config


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path):
    want = expected(path)
    with pytest.raises(sl.FormatError) as caught:
        verify(path)
    error = caught.value
    assert type(error) is ERRORS[want["error"]]
    assert error.path == str(path.with_name(want.get("file", path.name)))
    if "file" in want:
        assert error.field == want["field"]
        assert error.offset is None or 0 <= error.offset <= want["within"][1]
    elif error.field in want.get("also", []):
        assert 0 <= error.offset < path.stat().st_size
    else:
        assert agrees(error.field, want["field"]), f"{error.field} is not {want['field']}"
        assert error.offset in places(path.read_bytes(), error.field, want)


def places(data, field, want):
    """Where an error may point: to the field, where it has a place of its own in a table."""
    begin, end = want["within"]
    table = []
    if want["error"] != "Truncated":
        if (begin, end) == (0, 128):
            table = HEADER
        elif data[begin : begin + 8] == FOOTER_MAGIC:
            table = FOOTER
        elif data[begin : begin + 4] in (b"BLCK", b"SEQS", b"META"):
            table = [row for row in FRAME if row[0] not in AT_CONTENT]
    exact = {begin + offset for name, offset, _ in table if name == field}
    return exact or range(begin, end + 1)


def test_repeated_sequence_id(tmp_path):
    """Uniqueness is a rule of the cache: the library checks it in `verify`."""
    data = (GOLDEN / "invalid" / "sequence_id_repeated.slc").read_bytes()
    header = reference_decoder.decode_header(data)
    shard = reference_decoder.Shard(header)
    shard.records, shard.sequences = [[(0, 1)] * 2, [(0, 1)], [(0, 1)] * 2], [{}, {}]
    cache = sl.open(make_cache(tmp_path / "cache", data, shard))
    with pytest.raises(sl.CorruptionError) as caught:
        cache.verify()
    assert caught.value.field == "sequence_id"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
@pytest.mark.parametrize("check", [True, False])
def test_invalid_shards_are_safe_to_read(path, check):
    """Whatever the bytes are, opening and reading gives data or an error of ours."""
    data = path.read_bytes()
    with contextlib.suppress(sl.SparseLogitsError):
        models = core_models(path)
        info = _core.read_shard_info(str(path), models)
        row = (str(path), data[24:40].hex(), len(data))
        totals = (info["sequences"], info["positions"], info["entries"])
        reader = _core.CacheReader([row + totals], info["config"], models, check)
        positions = np.arange(info["positions"], dtype=np.int64)
        with contextlib.suppress(sl.SparseLogitsError):
            reader.sequence_table()
        with contextlib.suppress(sl.SparseLogitsError):
            reader.read_positions(positions)
        offsets, token_ids, *_ = reader.read_positions(positions)
        assert offsets[-1] == len(token_ids)
        assert np.all(token_ids < info["config"].to_dict()["vocab_size"])
