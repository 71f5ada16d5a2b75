"""Text files, JSON lines, Parquet and datasets: what they may hold, and what they may not."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.tokens import open_rows, open_tokens


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    text = "a\r\ncat  \u00e9\n\n"
    (tmp_path / "t.txt").write_bytes(text.encode())
    (batch,) = open_rows(tmp_path / "t.txt").batches()
    assert batch.texts == [text]


def test_a_folder_is_taken_in_order_of_names_with_its_folders(
    tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("c", "mat"), ("a", "cat"), ("b/x", "red"), (".hidden", "sat")):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "readme.md").write_text("not a document")
    source = open_tokens(tmp_path, tokenizer=tokenizer)
    assert corpus.as_lists(source) == [corpus.ids_of(text) for text in ("cat", "red", "mat")]


def test_lines_of_white_space_are_no_documents(tmp_path: Path, tokenizer: Any) -> None:
    lines = ['{"text": "a cat"}', "", "  ", '{"text": ""}', '{"text": "mat"}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    source = open_tokens(tmp_path / "c.jsonl", tokenizer=tokenizer)
    assert corpus.as_lists(source) == [corpus.ids_of("a cat"), [], corpus.ids_of("mat")]


def test_batches_end_early_where_documents_are_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    texts = [f"a {'cat ' * number}" for number in range(40)]
    file = corpus.write_jsonl(tmp_path / "c.jsonl", texts)
    expected = corpus.as_lists(open_tokens(file, tokenizer=tokenizer))
    monkeypatch.setattr("sparselogits.tokens.text_files.BATCH_BYTES", 300)
    monkeypatch.setattr("sparselogits.tokens.text_files.BATCH_ROWS", 7)
    batches = list(open_rows(file).batches())
    assert [text for batch in batches for text in batch.texts or []] == texts
    assert [line for batch in batches for line in batch.places] == list(range(1, 41))
    sizes = [[len(line) for line in file.read_bytes().splitlines(True)]]
    for batch in batches:
        full, sizes = sizes[0][: len(batch.places)], [sizes[0][len(batch.places) :]]
        assert sum(full[:-1]) <= 300
        assert len(full) == 7 or sum(full) > 300 or not sizes[0]
    assert max(len(batch.places) for batch in batches) == 7
    assert batches[-1].done == file.stat().st_size
    assert corpus.as_lists(open_tokens(file, tokenizer=tokenizer)) == expected


GOOD = '{"text": "a cat"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"byte 18, field text: line 2 is no JSON"),
        ("[1]", r"line 2 is no JSON object: b'\[1\]"),
        ("[" * 100_000, "line 2 is no JSON"),
        ('{"body": 1, "id": 2}', "line 2 lacks the field; its fields: 'body', 'id'"),
        ("{}", "line 2 lacks the field; its fields: none"),
        ('{"text": null}', "line 2 must hold text there, got null"),
        ('{"text": 7}', "line 2 must hold text there, got 7"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, tokenizer: Any, line: str, message: str) -> None:
    (tmp_path / "c.jsonl").write_text(GOOD + line + "\n" + GOOD)
    source = open_tokens(tmp_path / "c.jsonl", tokenizer=tokenizer)
    with pytest.raises(sl.CorruptionError, match=r"c\.jsonl, .*" + message):
        source.num_tokens  # noqa: B018


def test_text_that_is_not_utf8(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "c.jsonl").write_bytes(GOOD.encode() + b'{"text": "\xff"}\n')
    (tmp_path / "c.txt").write_bytes(b"cat \xe9t")
    for name, offset in (("c.jsonl", 28), ("c.txt", 4)):
        with pytest.raises(sl.CorruptionError, match="is not UTF-8: b'") as caught:
            open_tokens(tmp_path / name, tokenizer=tokenizer).offsets  # noqa: B018
        assert (caught.value.path, caught.value.offset) == (str(tmp_path / name), offset)


def test_half_a_surrogate_in_json_is_an_error_of_its_own(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "c.jsonl").write_text(GOOD + '{"text": "a \\ud800"}\n')
    with pytest.raises(sl.CorruptionError, match=r"line 2 .*surrogate"):
        open_tokens(tmp_path / "c.jsonl", tokenizer=tokenizer).offsets  # noqa: B018


def test_a_document_of_text_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparselogits.tokens.text_files._LONGEST_TEXT", 3)
    (tmp_path / "t.txt").write_text("abcd")
    with pytest.raises(sl.InvalidArgumentError, match=r"has 4 bytes, but a document .* at most 3"):
        open_rows(tmp_path / "t.txt")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(corpus.TEXTS, pa.large_string()),
        pa.array(corpus.TEXTS).dictionary_encode(),
        pa.array(corpus.DOCUMENTS, pa.large_list(pa.uint16())),
        pa.array(corpus.DOCUMENTS, pa.list_(pa.int32())),
        pa.chunked_array([pa.array(corpus.DOCUMENTS[:2]), pa.array(corpus.DOCUMENTS[2:])]),
    ],
    ids=lambda column: str(column.type).split("<")[0],
)
def test_every_arrow_type_of_text_and_ids(tmp_path: Path, tokenizer: Any, column: Any) -> None:
    file = corpus.write_parquet(tmp_path / "c.parquet", things=column)
    source = open_tokens(file, tokenizer=tokenizer, column="things")
    assert corpus.as_lists(source) == corpus.DOCUMENTS


def test_lists_of_one_size(tmp_path: Path) -> None:
    rows = pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    source = open_tokens(corpus.write_parquet(tmp_path / "c.parquet", input_ids=rows))
    assert corpus.as_lists(source) == [[1, 2], [3, 4], [5, 6]]


def both(tmp_path: Path, **columns: Any) -> list[Any]:
    """The same columns as a Parquet file and as a dataset."""
    file = corpus.write_parquet(tmp_path / "c.parquet", **columns)
    return [file, datasets.Dataset(pa.table(columns))]


def test_columns_that_are_not_there_or_not_clear(tmp_path: Path) -> None:
    for source in both(tmp_path, text=["a"], input_ids=[[1]], id=[1]):
        with pytest.raises(sl.InvalidArgumentError, match=r"no column 'body'; columns: text, inpu"):
            open_tokens(source, column="body")
        with pytest.raises(sl.InvalidArgumentError, match="has both columns 'input_ids'"):
            open_tokens(source)
        with pytest.raises(sl.InvalidArgumentError, match=r"'id' must hold text or lists .* int64"):
            open_tokens(source, column="id")
        assert corpus.as_lists(open_tokens(source, column="input_ids")) == [[1]]
    for source in both(tmp_path, body=["a"]):
        with pytest.raises(sl.InvalidArgumentError, match="has no column 'input_ids' and 'text'"):
            open_tokens(source)


def test_null_rows_and_ids_are_named(tmp_path: Path, tokenizer: Any) -> None:
    for source in both(tmp_path, text=["a", "cat", None]):
        with pytest.raises(sl.CorruptionError, match="field text: row 2 is null"):
            open_tokens(source, tokenizer=tokenizer).offsets  # noqa: B018
    for source in both(tmp_path, input_ids=[[1], None]):
        with pytest.raises(sl.CorruptionError, match="field input_ids: row 1 is null"):
            open_tokens(source).offsets  # noqa: B018
    for source in both(tmp_path, input_ids=[[1], [], [2, None]]):
        with pytest.raises(sl.CorruptionError, match="field input_ids: row 2 holds a null id"):
            open_tokens(source).offsets  # noqa: B018


def test_null_rows_are_counted_through_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparselogits.tokens.parquet_files.BATCH_ROWS", 2)
    monkeypatch.setattr("sparselogits.tokens.dataset_rows.BATCH_ROWS", 2)
    for source in both(tmp_path, input_ids=[[1], [2], [3], [4], [None]]):
        with pytest.raises(sl.CorruptionError, match="row 4 holds a null id"):
            open_tokens(source).offsets  # noqa: B018


def test_ids_outside_the_vocabulary_are_named(tmp_path: Path) -> None:
    for source in both(tmp_path, input_ids=[[1], [], [2, 9]]):
        name = "c.parquet" if isinstance(source, Path) else "a dataset"
        message = rf"{name}, row 2: token 1 has id 9, outside \[0, 9\)"
        with pytest.raises(sl.InvalidArgumentError, match=message):
            open_tokens(source, vocab_size=9).offsets  # noqa: B018
        assert open_tokens(source, vocab_size=10).num_tokens == 3
    for source in both(tmp_path, input_ids=[[1], [], [9]]):
        with pytest.raises(sl.InvalidArgumentError, match=r"row 2: token 0 has id 9"):
            open_tokens(source, vocab_size=9).offsets  # noqa: B018
    for wrong in (-1, 2**32):
        for source in both(tmp_path, input_ids=[[wrong]]):
            with pytest.raises(sl.InvalidArgumentError, match=f"row 0: token 0 has id {wrong}"):
                open_tokens(source).offsets  # noqa: B018


def test_damaged_parquet_is_an_error_of_ours(tmp_path: Path) -> None:
    ids = np.arange(3000).reshape(10, 300).tolist()
    file = corpus.write_parquet(tmp_path / "c.parquet", input_ids=ids)
    good = open_tokens(file).digest()
    data = file.read_bytes()
    for length in (0, 3, 7, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(sl.CorruptionError, match=r"c\.parquet: is no whole Parquet file"):
            open_tokens(file)
    refused = 0
    for place in range(0, len(data), 97):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            assert len(open_tokens(file, vocab_size=3000).digest()) == len(good)
        except sl.SparseLogitsError:
            refused += 1
    assert refused > 3
    with pytest.raises(sl.CacheIOError, match=r"none\.parquet"):
        open_tokens(tmp_path / "none.parquet")


def test_what_no_dataset_can_be(tokenizer: Any) -> None:
    rows = datasets.Dataset.from_dict({"text": corpus.TEXTS})
    splits = datasets.DatasetDict(train=rows, test=rows)
    with pytest.raises(sl.InvalidArgumentError, match="choose one of 'train', 'test'"):
        open_tokens(splits, tokenizer=tokenizer)
    with pytest.raises(sl.InvalidArgumentError, match="IterableDataset has no length"):
        open_tokens(rows.to_iterable_dataset(), tokenizer=tokenizer)
    with pytest.raises(sl.InvalidArgumentError, match="a dataset: dtype 'uint16' has no effect"):
        open_tokens(rows, tokenizer=tokenizer, dtype="uint16")


def test_a_saved_dataset_says_how_to_load_it(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(sl.InvalidArgumentError, match=r"load it with datasets\.load_from_disk"):
        open_tokens(tmp_path / "saved")


def test_files_and_folders_that_are_no_corpus(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.csv").write_text("a")
    corpus.write_jsonl(tmp_path / "a.jsonl", ["a"])
    for source, error, message in (
        (tmp_path / "empty", sl.InvalidArgumentError, r"holds none of \.parquet, \.jsonl, \.txt$"),
        (tmp_path, sl.InvalidArgumentError, r"files must be of one kind, got \.jsonl, \.txt"),
        (tmp_path / "a.csv", sl.InvalidArgumentError, r"suffix '\.csv' is not known"),
        (tmp_path / "nothing", sl.CacheIOError, "nothing"),
        (tmp_path / "nothing.txt", sl.CacheIOError, r"nothing\.txt"),
    ):
        with pytest.raises(error, match=message):
            open_tokens(source, tokenizer=tokenizer)
    with pytest.raises(sl.InvalidArgumentError, match="column 'text' has no effect on it"):
        open_tokens(tmp_path / "a.txt", tokenizer=tokenizer, column="text")
    for name in ("a.txt", "a.jsonl"):
        with pytest.raises(sl.InvalidArgumentError, match="holds text, which needs a tokenizer"):
            open_tokens(tmp_path / name)


def test_files_of_two_kinds_of_columns(tmp_path: Path, tokenizer: Any) -> None:
    files = [
        corpus.write_parquet(tmp_path / "a.parquet", x=["a"]),
        corpus.write_parquet(tmp_path / "b.parquet", x=[[1]]),
    ]
    with pytest.raises(sl.InvalidArgumentError, match=r"b\.parquet: column 'x' is lists of ids, b"):
        open_tokens(files, tokenizer=tokenizer, column="x")


def test_text_goes_through_a_file_that_has_no_name(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    source = open_tokens(
        corpus.write_jsonl(tmp_path / "c.jsonl", corpus.TEXTS), tokenizer=tokenizer
    )
    assert corpus.as_lists(source) == corpus.DOCUMENTS
    assert isinstance(source.read(0, 3), np.memmap)
    assert list((tmp_path / "spool").iterdir()) == []
    (tmp_path / "spool").rmdir()
    again = open_tokens(tmp_path / "c.jsonl", tokenizer=tokenizer)
    with pytest.raises(sl.CacheIOError, match="cannot write tokens to"):
        again.offsets  # noqa: B018


def test_special_tokens_are_not_added(tmp_path: Path) -> None:
    tokenizer = corpus.word_tokenizer()
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", corpus.BOS), ("<eos>", corpus.EOS)]
    )
    assert tokenizer("a cat")["input_ids"] == [corpus.BOS, *corpus.ids_of("a cat"), corpus.EOS]
    file = corpus.write_jsonl(tmp_path / "c.jsonl", ["a cat"])
    for given in (tokenizer, tokenizer.backend_tokenizer):
        assert corpus.as_lists(open_tokens(file, tokenizer=given)) == [corpus.ids_of("a cat")]


def test_the_names_of_lines_survive_json_of_any_order(tmp_path: Path) -> None:
    rows = [{"z": 1, "text": "a"}, {"text": "b", "z": [1, {"text": "c"}]}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (batch,) = open_rows(tmp_path / "c.jsonl").batches()
    assert batch.texts == ["a", "b"]
