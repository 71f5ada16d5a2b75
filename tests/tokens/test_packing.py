"""Windows against a slow, obvious packing of Python lists."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits.tokens import MegatronWriter, PackedWindows, open_tokens, pack

DOCUMENTS = st.lists(st.lists(st.integers(10, 99), max_size=7), max_size=9)
MARKS = st.sampled_from([None, 1]), st.sampled_from([None, 2])


def marked(documents: list[list[int]], bos: int | None, eos: int | None) -> list[list[int]]:
    begin, end = [[] if mark is None else [mark] for mark in (bos, eos)]
    return [[*begin, *document, *end] for document in documents]


def contents(windows: PackedWindows) -> list[list[int]]:
    return [window.tokens.tolist() for window in windows]


def packed_or_none(*args: Any, **options: Any) -> PackedWindows | None:
    """The windows; None where there would be none, which is an error."""
    try:
        return pack(*args, **options)
    except sl.InvalidArgumentError as error:
        if "give no window" not in str(error):
            raise
        return None


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.integers(1, 12), *MARKS, st.booleans(), st.booleans())
@example([[10], [], [11]], 3, None, None, True, True)
def test_windows_of_concat_are_the_stream_cut(
    documents: list[list[int]],
    length: int,
    bos: int | None,
    eos: int | None,
    keep: bool,
    boundaries: bool,
) -> None:
    packing = "concat-documents" if boundaries else "concat"
    windows = packed_or_none(documents, length, packing, bos=bos, eos=eos, keep_short=keep)
    pieces = marked(documents, bos, eos)
    stream = [token for piece in pieces for token in piece]
    expected = [stream[i : i + length] for i in range(0, len(stream), length)]
    if not keep:
        expected = [window for window in expected if len(window) == length]
    if windows is None:
        assert expected == []
        return
    assert contents(windows) == expected
    assert windows.num_positions == sum(map(len, expected))
    starts = {sum(map(len, pieces[:d])) for d in range(len(pieces)) if pieces[d]}
    for index, window in enumerate(windows):
        if not boundaries:
            assert window.document_starts is None
            continue
        cut = range(index * length, index * length + len(window.tokens))
        wanted = [place - cut.start for place in cut if place in starts or place == cut.start]
        assert window.document_starts is not None
        assert window.document_starts.tolist() == wanted


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.integers(1, 5), *MARKS, st.sampled_from([None, "split", "truncate"]))
def test_windows_of_documents_hold_one_each(
    documents: list[list[int]], length: int, bos: int | None, eos: int | None, long: str | None
) -> None:
    expected = []
    for document in marked(documents, bos, eos):
        pieces = [document[i : i + length] for i in range(0, len(document), length)]
        expected += pieces[:1] if long == "truncate" else pieces
    options: dict[str, Any] = {"bos": bos, "eos": eos, "long_documents": long}
    windows = packed_or_none(documents, length, "documents", **options)
    if windows is None:
        assert expected == []
        return
    assert contents(windows) == expected
    assert all(window.document_starts is None for window in windows)
    for start in range(len(expected)):
        for stop in range(start, len(expected) + 1):
            part = windows.select(range(start, stop))
            assert part.num_positions == sum(map(len, expected[start:stop]))


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(2, 8), st.sampled_from([None, 2]), st.sampled_from(["c", "d"]))
def test_a_bos_in_each_window_is_part_of_its_length(
    documents: list[list[int]], length: int, eos: int | None, kind: str
) -> None:
    options: dict[str, Any] = {"packing": "concat", "keep_short": True}
    if kind == "d":
        options = {"packing": "documents"}
    windows = packed_or_none(documents, length, bos=1, eos=eos, bos_at="window", **options)
    plain = packed_or_none(documents, length - 1, eos=eos, **options)
    if windows is None or plain is None:
        assert windows is plain
        return
    assert contents(windows) == [[1, *window] for window in contents(plain)]
    assert windows.num_positions == sum(map(len, contents(windows)))


@pytest.fixture
def windows() -> PackedWindows:
    """15 tokens and 5 ends, in windows of 3."""
    return pack(corpus.DOCUMENTS, 3, "concat-documents", eos=corpus.EOS, first_sequence_id=100)


def test_any_window_can_be_had_and_a_part_keeps_its_ids(windows: PackedWindows) -> None:
    whole = list(windows)
    assert [window.index for window in whole] == list(range(len(windows)))
    assert [window.sequence_id for window in whole] == list(range(100, 100 + len(windows)))
    part = windows.select(range(2, 5))
    assert len(part) == 3
    for index in (0, 1, 2, -1, -3):
        window, same = part[index], whole[2 + index % 3]
        assert (window.index, window.sequence_id) == (same.index, same.sequence_id)
        assert window.tokens.tolist() == same.tokens.tolist()
    assert part.select(range(1, 2))[0].sequence_id == 103
    assert part.description == windows.description
    assert len(part.select(range(0))) == 0
    for index in (3, -4):
        with pytest.raises(sl.SequenceNotFoundError, match=f"no window {index}: there are 3"):
            part[index]
    for wrong in (range(4), range(-1, 2), range(0, 3, 2), range(2, 1)):
        with pytest.raises(sl.InvalidArgumentError, match=r"inside \[0, 3\)"):
            part.select(wrong)


def test_the_digest_tells_windows_apart(windows: PackedWindows) -> None:
    same = pack(corpus.DOCUMENTS, 3, "concat-documents", eos=corpus.EOS, first_sequence_id=100)
    others = [
        pack(corpus.DOCUMENTS, 3, eos=corpus.EOS, first_sequence_id=100),
        pack(corpus.DOCUMENTS, 3, "concat-documents", eos=corpus.EOS),
        pack(corpus.DOCUMENTS, 3, "concat-documents", eos=1, first_sequence_id=100),
        pack(corpus.DOCUMENTS[1:], 3, "concat-documents", eos=2, first_sequence_id=100),
        windows.select(range(len(windows) - 1)),
    ]
    assert windows.content_digest() == same.content_digest()
    digests = {other.content_digest() for other in others}
    assert len(digests) == len(others)
    assert windows.content_digest() not in digests


def test_a_pickled_set_makes_the_same_windows(tmp_path: Path) -> None:
    with MegatronWriter(tmp_path / "c", "uint16") as writer:
        writer.append(np.arange(50_000) % 1000, [50] * 1000)
    windows = pack(tmp_path / "c", 64, "concat-documents", bos=1)
    windows[3]
    pickled = pickle.dumps(windows.select(range(5, 9)))
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    assert [window.tokens.tolist() for window in copy] == contents(windows)[5:9]
    assert copy.description == windows.description
    assert copy.num_positions == 4 * 64
    (tmp_path / "c.bin").write_bytes(bytes(100_000))
    with pytest.raises(sl.FingerprintMismatchError, match=r"c\.bin: has digest \w+, but had"):
        pickle.loads(pickled)[0]


def test_the_description_says_how_windows_were_made(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([5, 6, 9, 7, 9, 8], np.uint16))
    source = open_tokens(tmp_path / "c.npy", document_end=9)
    digest = source.digest()
    described = pack(source, 4, bos=1).description
    assert described == {
        "token_source": f"file c.npy, documents end with 9: 3 documents, 6 tokens, digest {digest}",
        "window_packing": "concat: documents end to end, cut into windows of 4 tokens, tokens left "
        "out at the end: 1",
        "document_mask": "none",
        "position_ids": "from 0 in each window",
        "bos_rule": "bos 1 before each document",
    }
    described = pack(source, 4, "concat-documents", bos=1, eos=2).description
    assert described["window_packing"].endswith("cut into windows of 4 tokens")
    assert described["document_mask"] == "no attention across document starts"
    assert described["position_ids"] == "from 0 in each window and document"
    assert described["bos_rule"] == "bos 1 before each document, eos 2 after each document"
    described = pack(source, 4, "documents").description
    assert described["window_packing"] == (
        "documents: one a window, split into pieces of at most 4 tokens"
    )
    assert described["bos_rule"] == "none added: tokens as in the source"
    described = pack(source, 4, "documents", long_documents="truncate", bos=1, bos_at="window")
    assert described.description["window_packing"].endswith("truncated to 4 tokens")
    assert described.description["bos_rule"] == "bos 1 before each window"
    kept = pack(source, 4, keep_short=True).description["window_packing"]
    assert kept.endswith("windows of 4 tokens, the last window is shorter")


@pytest.mark.parametrize(
    ("length", "options", "message"),
    [
        (0, {}, "length must be an integer from 1, got 0"),
        (True, {}, "length must be an integer from 1, got True"),
        (4.0, {}, "length must be an integer"),
        (1, {"bos": 1, "bos_at": "window"}, "length must be an integer from 2, got 1"),
        (4, {"packing": "shuffled"}, "packing must be one of concat, concat-documents, documents"),
        (4, {"bos": -1}, "bos must be an integer from 0, got -1"),
        (4, {"eos": "2"}, "eos must be an integer from 0, got '2'"),
        (4, {"eos": 14}, r"eos 14 is outside \[0, 14\)"),
        (4, {"bos_at": "window"}, "bos_at 'window' has no effect without bos"),
        (4, {"bos": 1, "bos_at": "line"}, "bos_at must be one of document, window, got 'line'"),
        (
            4,
            {"packing": "concat-documents", "bos": 1, "bos_at": "window"},
            "would leave documents inside a window without bos",
        ),
        (4, {"packing": "documents", "keep_short": False}, "keep_short False has no effect"),
        (4, {"long_documents": "split"}, "long_documents 'split' has no effect with packing 'con"),
        (4, {"packing": "documents", "long_documents": "drop"}, "one of split, truncate, got 'dr"),
        (99, {}, r"documents: 17 tokens, .* give no window of 99 tokens; keep_short"),
        (4, {"first_sequence_id": -1}, r"first_sequence_id must be from 0 to 2\^64 - 4"),
        (4, {"first_sequence_id": 2**64 - 3}, "the number of windows, got 18446744073709551613"),
    ],
)
def test_wrong_options_are_named(length: Any, options: dict[str, Any], message: str) -> None:
    source = open_tokens(corpus.DOCUMENTS, vocab_size=corpus.VOCAB)
    with pytest.raises(sl.InvalidArgumentError, match=message):
        pack(source, length, **options)


def test_the_last_ids_fit() -> None:
    windows = pack(corpus.DOCUMENTS, 4, first_sequence_id=2**64 - 4)
    assert windows[-1].sequence_id == 2**64 - 1


def test_a_stream_without_marks_needs_no_document_boundaries(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.arange(1000, dtype=np.uint16))
    windows = pack(tmp_path / "c.npy", 10)
    assert len(windows) == 100
    assert windows[57].tokens.tolist() == list(range(570, 580))
    assert windows[57].tokens.dtype == np.int64
    assert windows[57].captured.all()
