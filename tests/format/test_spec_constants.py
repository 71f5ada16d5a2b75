"""The tables of v1.md against the reference decoder and the C++ core: one layout, three places."""

from __future__ import annotations

import re

import pytest
import reference_decoder
from golden import SHARDS
from specification import SPEC, fields, number, section

import sparselogits as sl
from sparselogits import _core, limits

TABLES = {
    "3.1 Header": (reference_decoder.HEADER, "header_length"),
    "3.2 Footer": (reference_decoder.FOOTER, "footer_length"),
    "4. Frames": (reference_decoder.FRAME, "frame_header_length"),
    "7. CMIT, META, INDX": (reference_decoder.CMIT, "commit_length"),
}


@pytest.mark.parametrize("title", TABLES)
def test_tables(title):
    table = fields(section(title))
    ours, length = TABLES[title]
    assert table == ours
    ends = [offset + size for _, offset, size in table]
    assert [offset for _, offset, _ in table] == [0, *ends[:-1]], "fields without gaps"
    assert ends[-1] == _core.format_constants()[length]


def test_magic():
    header = re.search(r"`magic` \| `([0-9A-F ]+)`", section("3.1 Header"))
    assert bytes.fromhex(header[1]) == reference_decoder.MAGIC
    footer = re.search(r"`magic` \| `(\w+)` in ASCII", section("3.2 Footer"))
    assert footer[1].encode() == reference_decoder.FOOTER_MAGIC


def test_limits():
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section("10. Limits"), re.M))
    names = {
        "`vocab_size`": ("vocab_size", "vocab_size"),
        "`rounds`; entries of a record": ("rounds", "rounds"),
        "positions of a block": ("block_positions", "block_positions"),
        "entries of a block": ("block_entries", "entries_per_block"),
        "content of a block": ("block_bytes", "block_length"),
        "sequences of a SEQS frame": ("frame_sequences", "sequences_per_frame"),
        "entries of a shard": ("shard_entries", "entries_per_shard"),
        "positions of a shard; of a sequence": ("shard_positions", "positions_per_shard"),
        "sequences of a shard": ("shard_sequences", "sequences_per_shard"),
        "payload and content of a frame": ("frame_bytes", "frame_length"),
        "shard": ("shard_bytes", "shard_length"),
        "metadata": ("metadata_bytes", "metadata_length"),
    }
    core = _core.format_constants()["limits"]
    for row, (ours, theirs) in names.items():
        assert number(rows[row]) == reference_decoder.LIMITS[ours] == core[theirs], row
    record = number(rows["`rounds`; entries of a record"])
    assert record == reference_decoder.LIMITS["record_entries"] == core["entries_per_record"]
    size, shards, depth, digits = rows["manifest"].split(", ")
    assert number(size) == reference_decoder.LIMITS["manifest_bytes"]
    assert number(shards) == reference_decoder.LIMITS["shards"] == limits.MAX_SHARDS
    depths = (reference_decoder.LIMITS["manifest_depth"], limits.MAX_MANIFEST_DEPTH)
    assert depths == (number(depth),) * 2
    characters = (reference_decoder.LIMITS["number_characters"], limits.MAX_NUMBER_CHARACTERS)
    assert characters == (number(digits),) * 2
    assert set(rows) == {*names, "manifest", "what"}, "a limit nobody tests"


def test_hashes():
    crc = int(re.search(r'crc32c\("123456789"\) = 0x([0-9A-F]+)', SPEC)[1], 16)
    assert crc == reference_decoder.crc32c(b"123456789") == _core.crc32c(b"123456789")
    xxh = int(re.search(r'xxh64\(""\) = 0x([0-9A-F]+)', SPEC)[1], 16)
    assert xxh == reference_decoder.xxh64(b"") == _core.xxh64(b"")


def test_version():
    newest = re.findall(r"^\| (\d+)\.(\d+) \|", section("11. Versions"), re.M)[-1]
    version = tuple(map(int, newest))
    assert version == reference_decoder.VERSION == _core.format_constants()["version"]


def test_stretch():
    stretch = int(re.search(r"\*\*stretches\*\* of (\d+)", SPEC)[1])
    assert stretch == reference_decoder.STRETCH == _core.format_constants()["stretch_positions"]


def test_the_core_reads_every_header_field_where_the_table_says(tmp_path):
    """A header field set to an illegal value is refused under its own name and offset."""
    illegal = {
        "version_major": 9, "header_length": 1, "incompatible_features": 1 << 31, "vocab_size": 0,
        "rounds": 0, "value_kind": 9, "weight_dtype": 9, "codec": 99, "block_log2": 0,
        "store_tokens": 9, "sampler": 0x41, "temperature": 0, "proposal_temperature": 0,
        "reserved": 1,
    }  # fmt: skip
    data = SHARDS[0].read_bytes()
    rows = [row for row in fields(section("3.1 Header")) if row[0] in illegal]
    assert {name for name, _, _ in rows} == set(illegal)
    path = tmp_path / "broken.slc"
    for name, offset, size in rows:
        broken = bytearray(data)
        broken[offset : offset + size] = illegal[name].to_bytes(size, "little")
        broken[124:128] = reference_decoder.crc32c(bytes(broken[:124])).to_bytes(4, "little")
        path.write_bytes(broken)
        with pytest.raises(sl.FormatError) as caught:
            _core.read_shard_info(str(path), [])
        assert (caught.value.field, caught.value.offset) == (name, offset)
