"""`.npy` and headerless files: every dtype and shape, and what is wrong with the others."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.tokens import open_tokens

STREAM = np.arange(1, 13)


@pytest.mark.parametrize(
    "dtype", [np.uint16, np.uint32, np.int32, np.int64, np.uint8, np.uint64, ">u2"]
)
def test_every_integer_dtype_of_npy_is_the_same_stream(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "s.npy", STREAM.astype(dtype))
    assert corpus.as_lists(open_tokens(tmp_path / "s.npy")) == [STREAM.tolist()]
    assert open_tokens(tmp_path / "s.npy").digest() == open_tokens(STREAM).digest()


@pytest.mark.parametrize("dtype", ["uint16", "uint32", np.uint16, np.dtype(np.uint32)])
@pytest.mark.parametrize("name", ["train.bin", "train.tokens", "train"])
def test_a_headerless_file_is_little_endian(tmp_path: Path, dtype: Any, name: str) -> None:
    little = np.dtype(dtype).newbyteorder("<")
    (tmp_path / name).write_bytes(STREAM.astype(little).tobytes())
    source = open_tokens(str(tmp_path / name), dtype=dtype)
    assert corpus.as_lists(source) == [STREAM.tolist()]
    assert corpus.as_lists(pickle.loads(pickle.dumps(source))) == [STREAM.tolist()]


def test_rows_of_two_dimensions_are_documents(tmp_path: Path) -> None:
    for order in ("C", "F"):
        rows = np.asarray(STREAM.reshape(3, 4), order=order)  # type: ignore[call-overload]
        np.save(tmp_path / "w.npy", rows)
        for source in (open_tokens(tmp_path / "w.npy"), open_tokens(rows)):
            assert corpus.as_lists(source) == rows.tolist()
            for start in range(13):
                for stop in range(start, 13):
                    assert source.read(start, stop).tolist() == STREAM[start:stop].tolist()


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_no_tokens_are_no_error(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "w.npy", np.empty(shape, np.uint16))
    source = open_tokens(tmp_path / "w.npy")
    assert source.num_tokens == 0
    assert source.read(0, 0).size == 0
    assert len(source.digest()) == 16
    (tmp_path / "empty.bin").touch()
    assert open_tokens(tmp_path / "empty.bin", dtype="uint16").num_tokens == 0


@pytest.mark.parametrize(
    ("stream", "documents"),
    [
        ([5, 9, 6, 9], [[5, 9], [6, 9]]),
        ([5, 9, 9, 6], [[5, 9], [9], [6]]),
        ([9], [[9]]),
        ([1, 2], [[1, 2]]),
        ([], []),
    ],
)
def test_an_end_id_gives_a_flat_stream_its_documents(
    stream: list[int], documents: list[list[int]]
) -> None:
    source = open_tokens(np.array(stream, np.uint16), document_end=9)
    assert corpus.as_lists(source) == documents


def test_end_ids_are_found_across_the_pieces_of_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 4, 1000)
    whole = open_tokens(stream, document_end=2).offsets
    for piece in (1, 7, 999):
        monkeypatch.setattr("sparselogits.tokens.flat_stream._SCANNED_TOKENS", piece)
        assert open_tokens(stream, document_end=2).offsets.tolist() == whole.tolist()


def test_the_digest_samples_the_whole_stream_and_its_boundaries() -> None:
    stream = np.arange(200_000) % 5000
    digest = open_tokens(stream, document_end=77).digest()
    for place in (0, 1023, 199_999, 100_000 - 512):  # the last one is in the middle of two blocks
        other = stream.copy()
        other[place] += 1
        changed = open_tokens(other, document_end=77).digest() != digest
        assert changed == (place != 100_000 - 512)
    blocks = [block * (200_000 - 1024) // 63 for block in range(64)]
    for start in blocks:
        other = stream.copy()
        other[start + 5] += 1
        assert open_tokens(other, document_end=77).digest() != digest
    assert open_tokens(stream, document_end=78).digest() != digest


def test_a_document_is_a_view_of_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", STREAM.astype(np.uint16))
    piece = open_tokens(tmp_path / "s.npy").read(3, 7)
    assert not piece.flags.owndata
    assert piece.dtype == np.uint16


def test_an_open_file_is_not_pickled_with_its_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.zeros(100_000, np.uint16))
    source = open_tokens(tmp_path / "s.npy", document_end=0)
    assert source.num_documents == 100_000
    assert len(pickle.dumps(source)) < 1000


def test_ids_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([1, 2, 9, 4, 70, 9], np.int32))
    source = open_tokens(tmp_path / "s.npy", document_end=9, vocab_size=60)
    assert source.read(0, 4).tolist() == [1, 2, 9, 4]
    message = r"s\.npy: document 1, token 1, has id 70, outside \[0, 60\)"
    with pytest.raises(sl.InvalidArgumentError, match=message):
        source.read(2, 6)
    np.save(tmp_path / "n.npy", np.array([1, -2], np.int64))
    with pytest.raises(sl.InvalidArgumentError, match=r"token 1, has id -2, outside \[0, 42949"):
        open_tokens(tmp_path / "n.npy").document(0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"must be a 1-D stream .* got shape \(3,\), dtype float64"),
        (np.zeros((1, 2, 3), np.int64), r"got shape \(1, 2, 3\)"),
        (np.array(3), r"got shape \(\)"),
        (np.zeros(3, bool), "dtype bool"),
    ],
)
def test_arrays_that_are_no_tokens(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        open_tokens(array)
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(sl.InvalidArgumentError, match=r"s\.npy: .*" + message):
        open_tokens(tmp_path / "s.npy")


def test_files_that_are_no_tokens(tmp_path: Path) -> None:
    (tmp_path / "odd.bin").write_bytes(b"12345")
    with pytest.raises(sl.InvalidArgumentError, match=r"odd\.bin: has 5 bytes, .* multiple of 2"):
        open_tokens(tmp_path / "odd.bin", dtype="uint16")
    with pytest.raises(sl.InvalidArgumentError, match=r"odd\.bin: needs a dtype, uint16 or uint32"):
        open_tokens(tmp_path / "odd.bin")
    for dtype in ("int32", "float16", "word", 3):
        with pytest.raises(sl.InvalidArgumentError, match="dtype must be one of uint16, uint32"):
            open_tokens(tmp_path / "odd.bin", dtype=dtype)
    with pytest.raises(sl.CacheIOError, match=r"none\.npy"):
        open_tokens(tmp_path / "none.npy")
    with pytest.raises(sl.CacheIOError, match=r"none\.bin"):
        open_tokens(tmp_path / "none.bin", dtype="uint16")
    np.savez(tmp_path / "two.npz", a=STREAM)
    (tmp_path / "two.npz").rename(tmp_path / "two.npy")
    with pytest.raises(sl.InvalidArgumentError, match=r"two\.npy: is an archive"):
        open_tokens(tmp_path / "two.npy")


def test_every_truncation_of_a_npy_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", STREAM.astype(np.uint16))
    data = (tmp_path / "s.npy").read_bytes()
    for length in range(len(data)):
        (tmp_path / "s.npy").write_bytes(data[:length])
        with pytest.raises(sl.InvalidArgumentError, match=r"s\.npy"):
            open_tokens(tmp_path / "s.npy")


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", STREAM)
    np.save(tmp_path / "w.npy", STREAM.reshape(3, 4))
    (tmp_path / "raw.bin").write_bytes(b"1234")
    cases: list[tuple[Any, dict[str, Any]]] = [
        (tmp_path / "s.npy", {"dtype": "uint16"}),
        (tmp_path / "s.npy", {"column": "text"}),
        (tmp_path / "w.npy", {"document_end": 3}),
        (tmp_path / "raw.bin", {"dtype": "uint16", "column": "text"}),
        (STREAM, {"dtype": "uint16"}),
        ([[1]], {"document_end": 3}),
        (open_tokens(STREAM), {"vocab_size": 3}),
    ]
    for source, options in cases:
        with pytest.raises(sl.InvalidArgumentError, match="has no effect"):
            open_tokens(source, **options)
    for wrong in (0, 2**32 + 1):
        with pytest.raises(sl.InvalidArgumentError, match="vocab_size must be from 1 to"):
            open_tokens(STREAM, vocab_size=wrong)
    for nothing in (17, {"a": 1}, None):
        with pytest.raises(sl.InvalidArgumentError, match="tokens must be a path, an array"):
            open_tokens(nothing)
    with pytest.raises(sl.InvalidArgumentError, match="document 1 must be integers"):
        open_tokens([[1], [2.5]])
