"""The options of `capture` that cut a corpus: what they make, and that none goes unused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.cli.token_options import add_token_arguments, windows_from_arguments
from sparselogits.tokens import GivenWindows, MegatronWriter, WindowSet, open_tokens, pack


def windows(source: Path, *options: str, tokenizer: Any = None) -> WindowSet:
    parser = argparse.ArgumentParser()
    parser.add_argument("windows")
    parser.add_argument("--vocab-size", type=int)
    add_token_arguments(parser.add_argument_group("tokens"))
    return windows_from_arguments(parser.parse_args([str(source), *options]), tokenizer)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A corpus in three formats, and an array of windows."""
    stream = corpus.stream(corpus.DOCUMENTS)
    np.save(tmp_path / "flat.npy", stream)
    np.save(tmp_path / "windows.npy", stream[:16].reshape(4, 4))
    (tmp_path / "raw.bin").write_bytes(stream.astype("<u2").tobytes())
    with MegatronWriter(tmp_path / "megatron", "int32") as writer:
        for document in corpus.DOCUMENTS:
            writer.append(document)
    corpus.write_jsonl(tmp_path / "text.jsonl", corpus.TEXTS)
    corpus.write_parquet(tmp_path / "table.parquet", body=corpus.TEXTS)
    names = ("flat.npy", "windows.npy", "raw.bin", "megatron", "text.jsonl", "table.parquet")
    return {name.split(".")[0]: tmp_path / name for name in names}


def test_windows_that_are_cut_already_stay_as_they_are(files: dict[str, Path]) -> None:
    made = windows(files["windows"])
    assert isinstance(made, GivenWindows)
    assert made.array is not None
    assert made.array.shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("flat", [], pack(np.array(corpus.stream(corpus.DOCUMENTS)), 4)),
        ("raw", ["--token-dtype", "uint16"], pack(corpus.stream(corpus.DOCUMENTS), 4)),
        ("megatron", ["--packing", "documents"], pack(corpus.DOCUMENTS, 4, "documents")),
        ("text", ["--keep-short"], pack(corpus.DOCUMENTS, 4, keep_short=True)),
        (
            "table",
            ["--column", "body", "--packing", "concat-documents", "--bos", "tokenizer"],
            pack(corpus.DOCUMENTS, 4, "concat-documents", bos=corpus.BOS),
        ),
        (
            "megatron",
            ["--bos", "tokenizer", "--bos-at", "window", "--eos", "2", "--first-sequence-id", "9"],
            pack(corpus.DOCUMENTS, 4, bos=1, bos_at="window", eos=2, first_sequence_id=9),
        ),
        (
            "text",
            ["--packing", "documents", "--long-documents", "truncate"],
            pack(corpus.DOCUMENTS, 4, "documents", long_documents="truncate"),
        ),
        (
            "flat",
            ["--document-end", "8", "--packing", "documents"],
            pack(open_tokens(corpus.stream(corpus.DOCUMENTS), document_end=8), 4, "documents"),
        ),
    ],
)
def test_options_make_the_windows_of_the_api(
    files: dict[str, Path], tokenizer: Any, name: str, options: list[str], expected: Any
) -> None:
    made = windows(files[name], "--length", "4", *options, tokenizer=tokenizer)
    assert made.content_digest() == expected.content_digest()
    assert made.description["window_packing"] == expected.description["window_packing"]
    assert made.description["bos_rule"] == expected.description["bos_rule"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("flat", "", "--length is needed to cut"),
        ("windows", "--length 4", "--length has no effect: .* holds .* windows"),
        ("windows", "--packing concat", "--packing has no effect"),
        ("windows", "--keep-short", "--keep-short has no effect"),
        ("windows", "--token-dtype uint16", "--token-dtype has no effect"),
        (
            "flat",
            "--length 4 --document-end 8",
            "--document-end has no effect with --packing con",
        ),
        ("flat", "--length 4 --column text", "column 'text' has no effect"),
        ("megatron", "--length 4 --token-dtype uint16", "dtype 'uint16' has no effect"),
        ("megatron", "--length 4 --document-end 8", "document_end 8 has no effect"),
        ("megatron", "--length 4 --long-documents split", "long_documents 'split' has no effect"),
        ("megatron", "--length 4 --keep-short --packing documents", "keep_short True has no eff"),
        ("megatron", "--length 4 --bos-at window", "bos_at 'window' has no effect"),
        ("megatron", "--length 4 --bos tokenizer", "the tokenizer has no bos token"),
        ("megatron", "--length 4 --packing best-fit", "packing must be one of concat, "),
        ("megatron", "--length 4 --vocab-size 9", r"has id 9, outside \[0, 9\)"),
        ("text", "--length 4", "holds text, which needs a tokenizer"),
        ("raw", "--length 4", "needs a dtype, uint16 or uint32"),
    ],
)
def test_what_is_wrong_or_without_effect_is_told(
    files: dict[str, Path], name: str, options: str, message: str
) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        windows(files[name], *options.split())


def test_a_missing_file_is_an_io_error(tmp_path: Path) -> None:
    for name in ("none.npy", "none.txt", "none", "none.idx"):
        with pytest.raises(sl.CacheIOError, match="none"):
            windows(tmp_path / name, "--length", "4")
    with pytest.raises(sl.CacheIOError, match="none"):
        windows(tmp_path / "none.npy")
