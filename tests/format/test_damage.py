"""Every flipped bit and every cut of a shard is noticed, or changes nothing that it holds."""

from __future__ import annotations

import contextlib

import pytest
import reference_decoder
from golden import GOLDEN
from library import verify

import sparselogits as sl

NAMES = ["counts", "weights_bfloat16", "lz4_frames", "several_frames_in_a_commit"]


@pytest.fixture(params=NAMES)
def shard(request):
    return (GOLDEN / "valid" / f"{request.param}.slc").read_bytes()


def flips(data):
    """The data with one bit flipped, another one in each byte."""
    for i in range(len(data)):
        yield data[:i] + bytes([data[i] ^ (1 << (i * 5 % 8))]) + data[i + 1 :]


def test_flips_reference(shard):
    want = reference_decoder.decode_shard(shard).to_dict()
    same = 0
    for broken in flips(shard):
        with contextlib.suppress(reference_decoder.FormatError):
            assert reference_decoder.decode_shard(broken).to_dict() == want
            same += 1
    assert same == 0, "v1.md covers every byte with a checksum"


def test_flips_library(shard, tmp_path):
    path = tmp_path / "shard.slc"
    for i, broken in enumerate(flips(shard)):
        path.write_bytes(broken)
        with pytest.raises(sl.FormatError) as caught:
            verify(path)
        assert caught.value.path == str(path)
        assert caught.value.field, f"byte {i}"


def test_all_bits_of_the_fixed_parts(tmp_path):
    """Header, first frame header and footer: all eight flips of each byte."""
    data = (GOLDEN / "valid" / "counts.slc").read_bytes()
    path = tmp_path / "shard.slc"
    for i in [*range(160), *range(len(data) - 64, len(data))]:
        for bit in range(8):
            path.write_bytes(data[:i] + bytes([data[i] ^ (1 << bit)]) + data[i + 1 :])
            with pytest.raises(sl.FormatError):
                verify(path)


def test_cuts(shard, tmp_path):
    path = tmp_path / "shard.slc"
    for length in range(len(shard)):
        with pytest.raises(reference_decoder.Truncated):
            reference_decoder.decode_shard(shard[:length])
        path.write_bytes(shard[:length])
        with pytest.raises(sl.TruncatedError) as caught:
            verify(path)
        assert caught.value.path == str(path)
        assert caught.value.offset is not None
