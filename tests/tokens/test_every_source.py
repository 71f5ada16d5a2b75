"""The same documents, whatever they are stored in."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.tokens import MegatronWriter, TokenDocuments, open_tokens

IDS = [np.array(document, np.int64) for document in corpus.DOCUMENTS]


def megatron(path: Path, tokenizer: Any) -> TokenDocuments:
    with MegatronWriter(path / "corpus", "uint16") as writer:
        for document in IDS:
            writer.append(document)
    return open_tokens(path / "corpus", tokenizer=tokenizer)


def parquet_text(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(
        corpus.write_parquet(path / "c.parquet", text=corpus.TEXTS), tokenizer=tokenizer
    )


def parquet_ids(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(corpus.write_parquet(path / "c.parquet", input_ids=corpus.DOCUMENTS))


def parquet_folder(path: Path, tokenizer: Any) -> TokenDocuments:
    (path / "data").mkdir()
    for name, texts in (("b", corpus.TEXTS[3:]), ("a", corpus.TEXTS[:3])):
        corpus.write_parquet(path / "data" / f"{name}.parquet", words=texts, other=texts)
    return open_tokens(path, tokenizer=tokenizer, column="words")


def dataset_text(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(datasets.Dataset.from_dict({"text": corpus.TEXTS}), tokenizer=tokenizer)


def dataset_ids(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(datasets.Dataset.from_dict({"input_ids": corpus.DOCUMENTS}))


def dataset_shuffled_back(path: Path, tokenizer: Any) -> TokenDocuments:
    backwards = datasets.Dataset.from_dict({"input_ids": corpus.DOCUMENTS[::-1]})
    return open_tokens(backwards.select(range(len(backwards) - 1, -1, -1)))


def json_lines(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(corpus.write_jsonl(path / "c.jsonl", corpus.TEXTS), tokenizer=tokenizer)


def json_lines_bare_tokenizer(path: Path, tokenizer: Any) -> TokenDocuments:
    file = corpus.write_jsonl(path / "c.jsonl", corpus.TEXTS, field="body")
    return open_tokens(file, tokenizer=tokenizer.backend_tokenizer, column="body")


def text_files(path: Path, tokenizer: Any) -> TokenDocuments:
    for number, text in enumerate(corpus.TEXTS):
        (path / f"{number}.txt").write_text(text)
    return open_tokens(
        [path / f"{number}.txt" for number in range(len(corpus.TEXTS))], tokenizer=tokenizer
    )


def lists(path: Path, tokenizer: Any) -> TokenDocuments:
    return open_tokens(corpus.DOCUMENTS, tokenizer=tokenizer)


SOURCES = [
    megatron,
    parquet_text,
    parquet_ids,
    parquet_folder,
    dataset_text,
    dataset_ids,
    dataset_shuffled_back,
    json_lines,
    json_lines_bare_tokenizer,
    text_files,
    lists,
]


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Any) -> TokenDocuments:
    make: Callable[[Path, Any], TokenDocuments] = request.param
    return make(tmp_path, tokenizer)


def test_documents_lengths_and_stream_are_the_same(source: TokenDocuments) -> None:
    assert corpus.as_lists(source) == corpus.DOCUMENTS
    assert source.num_documents == len(corpus.DOCUMENTS)
    assert source.lengths.tolist() == [len(document) for document in corpus.DOCUMENTS]
    whole = corpus.stream(corpus.DOCUMENTS)
    assert source.num_tokens == len(whole)
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert source.read(start, stop).tolist() == whole[start:stop].tolist()


def test_the_digest_is_of_the_tokens_not_of_the_format(source: TokenDocuments) -> None:
    assert source.digest() == open_tokens(corpus.DOCUMENTS).digest()
    other = [*corpus.DOCUMENTS[:-1], [corpus.DOCUMENTS[-1][0] + 1]]
    assert source.digest() != open_tokens(other).digest()
    moved = [corpus.DOCUMENTS[0][:-1], corpus.DOCUMENTS[0][-1:], *corpus.DOCUMENTS[2:]]
    assert source.digest() != open_tokens(moved).digest()


def test_a_pickled_source_reads_the_same(source: TokenDocuments) -> None:
    unused = pickle.dumps(source)
    assert corpus.as_lists(pickle.loads(unused)) == corpus.DOCUMENTS
    source.read(0, 3)
    used = pickle.loads(pickle.dumps(source))
    assert used.read(4, 9).tolist() == source.read(4, 9).tolist()
    assert (used.name, used.label, used.vocab_size) == (
        source.name,
        source.label,
        source.vocab_size,
    )


def test_what_lies_outside_is_refused(source: TokenDocuments) -> None:
    for index in (-1, len(corpus.DOCUMENTS)):
        with pytest.raises(sl.InvalidArgumentError, match=f"no document {index} among 5"):
            source.document(index)
    for start, stop in ((-1, 2), (2, 1), (0, source.num_tokens + 1)):
        with pytest.raises(sl.InvalidArgumentError, match=f"tokens {start} to {stop} do not lie"):
            source.read(start, stop)
