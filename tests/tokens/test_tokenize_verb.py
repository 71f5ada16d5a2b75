"""`sparselogits tokenize`: text in, a pair out that reads as the text does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import token_corpora as corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.cli import main
from sparselogits.tokens import open_rows, open_tokens, tokenize


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["tokenize", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def write_inputs(path: Path) -> dict[str, list[Path]]:
    """The texts as inputs of each kind."""
    for index, text in enumerate(corpus.TEXTS):
        (path / f"{index}.txt").write_text(text)
    return {
        "jsonl": [corpus.write_jsonl(path / "c.jsonl", corpus.TEXTS)],
        "two": [
            corpus.write_jsonl(path / "a.jsonl", corpus.TEXTS[:2]),
            corpus.write_jsonl(path / "b.jsonl", corpus.TEXTS[2:]),
        ],
        "parquet": [corpus.write_parquet(path / "c.parquet", text=corpus.TEXTS, n=[1] * 5)],
        "txt": [path / f"{index}.txt" for index in range(len(corpus.TEXTS))],
    }


@pytest.mark.parametrize("kind", ["jsonl", "two", "parquet", "txt"])
def test_every_kind_of_text_becomes_the_same_pair(
    capsys: Any, tmp_path: Path, tokenizer_path: Path, kind: str
) -> None:
    inputs = write_inputs(tmp_path)[kind]
    out = tmp_path / "new" / "corpus"
    code, printed, errors = run(
        capsys, *inputs, "--tokenizer", tokenizer_path, "--out", out, "--json"
    )
    assert (code, errors) == (0, "")
    report = json.loads(printed)
    assert report.pop("seconds") >= 0
    assert report.pop("tokens_per_second") > 0
    assert len(report.pop("tokenizer_fingerprint")) == 16
    assert report == {
        "path": str(out),
        "documents": 5,
        "empty_documents": 1,
        "tokens": 17,
        "dtype": "uint16",
        "bytes": 2 * 17 + 34 + 12 * 5 + 8 * 6,
        "digest": open_tokens(corpus.DOCUMENTS).digest(),
    }
    assert corpus.as_lists(open_tokens(out)) == corpus.DOCUMENTS
    assert sorted(path.name for path in out.parent.iterdir()) == ["corpus.bin", "corpus.idx"]


@pytest.mark.parametrize(
    ("options", "bos", "eos"),
    [
        (["--eos", "tokenizer"], [], [corpus.EOS]),
        (["--bos", "tokenizer", "--eos", "5"], [corpus.BOS], [5]),
        (["--bos", "7"], [7], []),
    ],
)
def test_marks_are_written_around_each_document(
    capsys: Any,
    tmp_path: Path,
    tokenizer_path: Path,
    options: list[str],
    bos: list[int],
    eos: list[int],
) -> None:
    file = corpus.write_jsonl(tmp_path / "c.jsonl", corpus.TEXTS)
    code, _, errors = run(
        capsys, file, "--tokenizer", tokenizer_path, "--out", tmp_path / "c", *options
    )
    assert code == 0, errors
    expected = [[*bos, *document, *eos] for document in corpus.DOCUMENTS]
    assert corpus.as_lists(open_tokens(tmp_path / "c")) == expected


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--bos", "x"], 2, "--bos must be an id or `tokenizer`, got 'x'"),
        (["--eos", "14"], 2, "eos 14 is outside [0, 14)"),
        (["--column", "body"], 1, "line 1 lacks the field; its fields: 'id', 'text'"),
        (["--out", "{tmp}/there"], 2, "there.bin exists: choose another prefix"),
        (["--tokenizer", "{tmp}/nowhere"], 3, "cannot load the tokenizer"),
    ],
)
def test_what_is_wrong_is_told_and_leaves_nothing(
    capsys: Any,
    tmp_path: Path,
    tokenizer_path: Path,
    options: list[str],
    code: int,
    message: str,
) -> None:
    file = corpus.write_jsonl(tmp_path / "c.jsonl", corpus.TEXTS)
    (tmp_path / "there.bin").write_bytes(b"mine")
    before = sorted(tmp_path.iterdir())
    options = [option.format(tmp=tmp_path) for option in options]
    base = [file, "--tokenizer", tokenizer_path, "--out", tmp_path / "c"]
    done, _, errors = run(capsys, *base, *options)
    assert done == code, errors
    assert message in errors
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.bin").read_bytes() == b"mine"


def test_ids_are_not_tokenised_again(capsys: Any, tmp_path: Path, tokenizer_path: Path) -> None:
    file = corpus.write_parquet(tmp_path / "c.parquet", input_ids=corpus.DOCUMENTS)
    code, _, errors = run(capsys, file, "--tokenizer", tokenizer_path, "--out", tmp_path / "c")
    assert code == 2
    assert "holds token ids already, not text" in errors


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=6))
def test_ids_of_a_byte_tokenizer_decode_to_the_text(
    tmp_path_factory: Any, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("bytes")
    bytewise = corpus.byte_tokenizer()
    tokenize(open_rows(corpus.write_jsonl(path / "c.jsonl", texts)), bytewise, path / "c")
    source = open_tokens(path / "c")
    assert [bytewise.decode(ids) for ids in corpus.as_lists(source)] == texts


class LargeTokenizer:
    """A token a character, in a vocabulary as large as one likes."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size

    def __len__(self) -> int:
        return self._vocab_size

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "int32")])
def test_the_dtype_is_the_smallest_that_holds_the_vocabulary(
    tmp_path: Path, vocab_size: int, dtype: str
) -> None:
    file = corpus.write_jsonl(tmp_path / "c.jsonl", ["a\uffff"])
    seen = []
    tokenize(
        open_rows(file),
        LargeTokenizer(vocab_size),
        tmp_path / "c",
        progress=lambda done, total: seen.append((done, total)),
    )
    source: Any = open_tokens(tmp_path / "c")
    assert source.dtype == dtype
    assert source.document(0).tolist() == [97, 0xFFFF]
    assert seen == [(file.stat().st_size,) * 2]
