"""The reference decoder against the golden files, and its algorithms against other people's."""

from __future__ import annotations

import subprocess
import sys

import lz4.block
import pytest
import reference_decoder
import xxhash
from golden import FORMATS, INVALID, VALID, expected, same
from hypothesis import given
from hypothesis import strategies as st
from reference_algorithms import crc32c, lz4_block, xxh64
from reference_encoder import lz4_compress


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path):
    assert same(reference_decoder.decode(path), expected(path))


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path):
    want = expected(path)
    with pytest.raises(reference_decoder.FormatError) as caught:
        reference_decoder.decode(path)
    error = caught.value
    begin, end = want["within"]
    faulty = path.with_name(want.get("file", path.name))
    assert (type(error).__name__, error.path) == (want["error"], str(faulty))
    assert want["field"] in ("", error.field)
    assert begin <= error.offset <= end
    assert str(error).startswith(f"{faulty}, byte {error.offset}, field {error.field}: ")


def test_every_golden_file_is_there_and_unchanged():
    """What the cases make is what lies in golden/, and nothing else lies there."""
    command = [sys.executable, str(FORMATS / "make_golden.py"), "--check"]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


def test_command_line():
    command = [sys.executable, str(FORMATS / "reference_decoder.py")]
    good = subprocess.run([*command, VALID[0]], capture_output=True, text=True, check=True)
    assert '"records": [' in good.stdout
    bad = subprocess.run([*command, INVALID[0]], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert str(INVALID[0]) in bad.stderr


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@given(st.binary(max_size=200))
def test_xxh64(data):
    assert xxh64(data) == xxhash.xxh64_intdigest(data)


@given(st.binary(max_size=100), st.integers(1, 40))
def test_lz4_both_ways(data, repeats):
    data *= repeats
    assert lz4_block(lz4.block.compress(data, store_size=False), len(data)) == data
    compressed = lz4_compress(data)
    assert lz4_block(compressed, len(data)) == data
    if data:  # the lz4 package refuses a size of 0
        assert lz4.block.decompress(compressed, uncompressed_size=len(data)) == data
