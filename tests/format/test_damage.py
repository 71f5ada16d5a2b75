"""Every flipped bit and every cut of a shard is noticed, or changes nothing that it holds."""

from __future__ import annotations

import contextlib

import pytest
import reference_decoder
from golden import GOLDEN
from library import core_models, verify
from reference_decoder import models_beside
from reference_model import decode_model

import sparselogits as sl
from sparselogits import _core
from sparselogits.cache_models import read_model

NAMES = [
    "counts", "weights_bfloat16", "lz4_frames", "several_frames_in_a_commit", "compact_ranks",
    "compact_lz4_frames",
]  # fmt: skip
VALID = GOLDEN / "valid"
MODELS = models_beside(VALID / "counts.slc")


@pytest.fixture(params=NAMES)
def shard(request, tmp_path):
    """The bytes of a shard; its model lies in tmp_path."""
    path = VALID / f"{request.param}.slc"
    for model in core_models(path):
        (tmp_path / model.file_name).write_bytes(model.to_bytes())
    return path.read_bytes()


def flips(data):
    """The data with one bit flipped, another one in each byte."""
    for i in range(len(data)):
        yield data[:i] + bytes([data[i] ^ (1 << (i * 5 % 8))]) + data[i + 1 :]


def test_flips_reference(shard):
    want = reference_decoder.decode_shard(shard, MODELS).to_dict()
    same = 0
    for broken in flips(shard):
        with contextlib.suppress(reference_decoder.FormatError):
            assert reference_decoder.decode_shard(broken, MODELS).to_dict() == want
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
            reference_decoder.decode_shard(shard[:length], MODELS)
        path.write_bytes(shard[:length])
        with pytest.raises(sl.TruncatedError) as caught:
            verify(path)
        assert caught.value.path == str(path)
        assert caught.value.offset is not None


def test_models_above_their_limit_are_refused():
    """Before anything else is done with them."""
    data = bytes(2**26 + 1)
    with pytest.raises(sl.CorruptionError) as caught:
        _core.CodecModel.parse(data)
    with pytest.raises(reference_decoder.Corruption) as refused:
        decode_model(data, 1)
    assert caught.value.field == refused.value.field == "header"


def test_every_change_of_a_model_is_refused(tmp_path):
    """The name of its file is its digest: flips, cuts, and bytes behind the end."""
    (model,) = core_models(VALID / "compact_ranks.slc")
    data, path = model.to_bytes(), tmp_path / model.file_name
    changed = [*flips(data), *(data[:length] for length in range(len(data))), data + b"\0"]
    for broken in changed:
        path.write_bytes(broken)
        with pytest.raises(sl.CorruptionError) as caught:
            read_model(tmp_path, model.file_name)
        assert (caught.value.path, caught.value.field) == (str(path), "digest")
        with pytest.raises(reference_decoder.Corruption) as refused:
            decode_model(broken, model.digest)
        assert (refused.value.path, refused.value.field) == (model.file_name, "digest")
