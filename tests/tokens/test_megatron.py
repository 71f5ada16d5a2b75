"""Megatron-LM pairs: the layout byte by byte, and every way to damage it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits.tokens import MegatronWriter, TokenDocuments, open_tokens

# As Megatron-LM's own builder writes two documents of two and one sequences, with uint16 ids.
SEQUENCES = [[5, 6, 7], [8], [9, 10]]
DOCUMENTS = [[5, 6, 7, 8], [9, 10]]
INDEX = (
    b"MMIDIDX\x00\x00"
    + struct.pack("<QBQQ", 1, 8, 3, 3)
    + struct.pack("<3i", 3, 1, 2)
    + struct.pack("<3q", 0, 6, 8)
    + struct.pack("<3q", 0, 2, 3)
)
DATA = struct.pack("<6H", 5, 6, 7, 8, 9, 10)


def write_pair(path: Path, index: bytes = INDEX, data: bytes = DATA) -> Path:
    (path / "c.idx").write_bytes(index)
    (path / "c.bin").write_bytes(data)
    return path / "c"


def read_all(prefix: Path) -> list[list[int]]:
    return corpus.as_lists(open_tokens(prefix))


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path)
    for name in (prefix, f"{prefix}.bin", f"{prefix}.idx"):
        assert read_all(Path(name)) == DOCUMENTS


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint16"])
def test_what_is_written_is_read(tmp_path: Path, dtype: str) -> None:
    with MegatronWriter(tmp_path / "c", dtype) as writer:
        writer.append(corpus.DOCUMENTS[0])
        rest = corpus.DOCUMENTS[1:]
        writer.append(corpus.stream(rest), [len(document) for document in rest])
    assert read_all(tmp_path / "c") == corpus.DOCUMENTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.bin", "c.idx"]


def test_the_writer_writes_the_published_layout(tmp_path: Path) -> None:
    with MegatronWriter(tmp_path / "c", np.int32) as writer:
        writer.append([1, 2, 3])
        writer.append([])
        writer.append([4])
    expected = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 4, 3, 4)
    expected += struct.pack("<3i", 3, 0, 1) + struct.pack("<3q", 0, 12, 12)
    expected += struct.pack("<4q", 0, 1, 2, 3)
    assert (tmp_path / "c.idx").read_bytes() == expected
    assert (tmp_path / "c.bin").read_bytes() == struct.pack("<4i", 1, 2, 3, 4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=9), max_size=9))
def test_any_documents_come_back(tmp_path_factory: Any, documents: list[list[int]]) -> None:
    prefix = tmp_path_factory.mktemp("pair") / "c"
    with MegatronWriter(prefix, "int32") as writer:
        for document in documents:
            writer.append(np.array(document, np.int64))
    assert read_all(prefix) == documents


def test_sequences_may_lie_anywhere_in_the_bin(tmp_path: Path) -> None:
    # The second sequence first, a hole of two tokens, the third overlapping the first.
    index = INDEX[:46] + struct.pack("<3q", 4, 0, 6) + INDEX[70:]
    prefix = write_pair(tmp_path, index, DATA)
    source = open_tokens(prefix)
    assert corpus.as_lists(source) == [[7, 8, 9, 5], [8, 9]]
    whole = [7, 8, 9, 5, 8, 9]
    for start in range(7):
        for stop in range(start, 7):
            assert source.read(start, stop).tolist() == whole[start:stop]


def test_a_bin_may_begin_with_something_else(tmp_path: Path) -> None:
    index = INDEX[:46] + struct.pack("<3q", 4, 10, 12) + INDEX[70:]
    assert read_all(write_pair(tmp_path, index, b"abcd" + DATA)) == DOCUMENTS


def test_no_documents_and_no_tokens(tmp_path: Path) -> None:
    with MegatronWriter(tmp_path / "c", "uint16"):
        pass
    assert read_all(tmp_path / "c") == []
    with MegatronWriter(tmp_path / "d", "uint16") as writer:
        writer.append([])
    assert read_all(tmp_path / "d") == [[]]


def test_every_truncation_of_the_index_is_refused(tmp_path: Path) -> None:
    for length in range(len(INDEX)):
        with pytest.raises(sl.TruncatedError) as caught:
            read_all(write_pair(tmp_path, INDEX[:length]))
        assert (caught.value.path, caught.value.offset) == (str(tmp_path / "c.idx"), length)
        assert caught.value.field is not None


def test_every_truncation_of_the_bin_is_refused(tmp_path: Path) -> None:
    for length in range(len(DATA)):
        with pytest.raises(sl.TruncatedError, match=r"but sequence \d of .*c\.idx has") as caught:
            read_all(write_pair(tmp_path, INDEX, DATA[:length]))
        assert caught.value.path == str(tmp_path / "c.bin")


def replaced(offset: int, kind: str, value: int) -> bytes:
    width = struct.calcsize(f"<{kind}")
    return INDEX[:offset] + struct.pack(f"<{kind}", value) + INDEX[offset + width :]


@pytest.mark.parametrize(
    ("offset", "kind", "value", "error", "message"),
    [
        (0, "B", 0, sl.CorruptionError, "byte 0, field magic: begins with"),
        (8, "B", 1, sl.CorruptionError, "byte 0, field magic"),
        (9, "Q", 0, sl.UnsupportedError, "byte 9, field version: is 0, known is 1"),
        (9, "Q", 2, sl.UnsupportedError, "byte 9, field version: is 2"),
        (17, "B", 0, sl.UnsupportedError, "byte 17, field dtype_code: is 0, known are 1, 2, 3"),
        (17, "B", 6, sl.UnsupportedError, "is 6, float64: token ids are integers"),
        (17, "B", 9, sl.UnsupportedError, "field dtype_code: is 9"),
        (18, "Q", 4, sl.TruncatedError, "has 94 bytes, the tables end at 106"),
        (18, "Q", 2**64 - 1, sl.TruncatedError, "field sequence_lengths: has 94 bytes"),
        (18, "Q", 2, sl.CorruptionError, "byte 82, field end: has 94 bytes, the tables end at 82"),
        (26, "Q", 0, sl.CorruptionError, "byte 26, field document_count: is 0"),
        (26, "Q", 2**63, sl.TruncatedError, "field document_indices: has 94 bytes"),
        (34, "i", -1, sl.CorruptionError, "byte 34, field sequence_lengths: entry 0 is -1"),
        (42, "i", 2**31 - 1, sl.TruncatedError, "has 12 bytes, but sequence 2 of"),
        (54, "q", -2, sl.CorruptionError, "byte 54, field sequence_pointers: entry 1 is -2"),
        (54, "q", 7, sl.CorruptionError, "entry 1 is 7, which is no multiple of 2"),
        (
            62,
            "q",
            2**63 - 2,
            sl.TruncatedError,
            "2 tokens of 2 bytes from byte 92233720",
        ),
        (70, "q", 1, sl.CorruptionError, "field document_indices: entry 0 is 1, which must be 0"),
        (78, "q", 4, sl.CorruptionError, "entry 1 is 4, which is above the number of sequences, 3"),
        (78, "q", -1, sl.CorruptionError, "byte 78, field document_indices: entry 1 is -1"),
        (
            86,
            "q",
            1,
            sl.CorruptionError,
            "byte 86, field document_indices: entry 2 is 1, which is",
        ),
        (86, "q", 2, sl.CorruptionError, "entry 2 is 2, which must be 3"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, offset: int, kind: str, value: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_all(write_pair(tmp_path, replaced(offset, kind, value)))


def test_every_flipped_bit_of_the_index_is_an_error_or_other_documents(tmp_path: Path) -> None:
    same = 0
    for bit in range(8 * len(INDEX)):
        index = bytearray(INDEX)
        index[bit // 8] ^= 1 << bit % 8
        try:
            same += read_all(write_pair(tmp_path, bytes(index))) == DOCUMENTS
        except (sl.FormatError, sl.InvalidArgumentError):
            continue
    assert same <= 8  # uint16 and int16 differ in some bits of the code, and read the same ids


def test_tables_are_checked_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparselogits.tokens.megatron_index._CHUNK", 1)
    assert read_all(write_pair(tmp_path)) == DOCUMENTS
    test_sequences_may_lie_anywhere_in_the_bin(tmp_path)
    descending = struct.pack("<3Q", 0, 2, 1) + struct.pack("<Q", 3)
    index = INDEX[:26] + struct.pack("<Q", 4) + INDEX[34:70] + descending
    with pytest.raises(sl.CorruptionError, match="entry 2 is 1, which is below the one before it"):
        read_all(write_pair(tmp_path, index))
    for offset, kind, value in ((86, "q", 1), (42, "i", -1), (62, "q", 7)):
        with pytest.raises(sl.CorruptionError, match=f"byte {offset}"):
            read_all(write_pair(tmp_path, replaced(offset, kind, value)))


def test_what_follows_the_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sl.UnsupportedError, match="multimodal"):
        read_all(write_pair(tmp_path, INDEX + bytes(3)))
    with pytest.raises(sl.CorruptionError, match="field end: has 95 bytes"):
        read_all(write_pair(tmp_path, INDEX + bytes(1)))


def test_missing_files_and_options_without_effect(tmp_path: Path) -> None:
    prefix = write_pair(tmp_path)
    with pytest.raises(sl.InvalidArgumentError, match="a Megatron-LM pair: dtype 'uint16' has no"):
        open_tokens(prefix, dtype="uint16")
    (tmp_path / "c.bin").unlink()
    with pytest.raises(sl.CacheIOError, match=r"c\.bin"):
        open_tokens(prefix)
    with pytest.raises(sl.CacheIOError, match=r"d\.idx"):
        open_tokens(tmp_path / "d.idx")


def test_ids_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    source: TokenDocuments = open_tokens(write_pair(tmp_path), vocab_size=10)
    assert source.document(0).tolist() == DOCUMENTS[0]
    message = r"c\.bin: document 1, token 1, has id 10, outside \[0, 10\)"
    with pytest.raises(sl.InvalidArgumentError, match=message):
        source.document(1)


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with MegatronWriter(tmp_path / "c", "uint16") as writer:
            writer.append([1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_the_writer_refuses(tmp_path: Path) -> None:
    for dtype in ("uint32", "float32"):
        with pytest.raises(sl.InvalidArgumentError, match=f"the layout has no {dtype}"):
            MegatronWriter(tmp_path / "c", dtype)
    for prefix in ("c.bin", "c.idx", "folder/", ""):
        with pytest.raises(sl.InvalidArgumentError, match="must be a prefix of file names"):
            MegatronWriter(str(tmp_path / "x").replace("x", prefix) if prefix else "", "uint16")
    with MegatronWriter(tmp_path / "c", "uint8") as writer:
        for wrong, message in (([256], "id 256 does not fit uint8"), ([-1], "id -1")):
            with pytest.raises(sl.InvalidArgumentError, match=message):
                writer.append(wrong)
        with pytest.raises(sl.InvalidArgumentError, match="lengths add up to 2, not to 3 tokens"):
            writer.append([1, 2, 3], [2])
        with pytest.raises(sl.InvalidArgumentError, match="a document of -1 tokens"):
            writer.append([1, 2, 3], [4, -1])
    for name in ("c.bin", "c.idx"):
        before = (tmp_path / name).read_bytes()
        with (
            pytest.raises(sl.InvalidArgumentError, match="exists"),
            MegatronWriter(tmp_path / "c", "uint8"),
        ):
            pass
        assert (tmp_path / name).read_bytes() == before
