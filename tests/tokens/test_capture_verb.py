"""`sparselogits capture` of a corpus: the cache that the API makes of the same windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus
from transformers import LlamaForCausalLM

import sparselogits as sl
from sparselogits.cli import main
from sparselogits.tokens import open_tokens, pack


@pytest.fixture(scope="module")
def teacher(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    corpus.teacher().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_text_becomes_the_cache_that_the_api_makes(
    capsys: Any, teacher: Path, tokenizer: Any, tmp_path: Path
) -> None:
    file = corpus.write_jsonl(tmp_path / "c.jsonl", corpus.TEXTS)
    options = "--length 6 --eos tokenizer --keep-short --first-sequence-id 7 --rounds 5 --json"
    code = main(["capture", str(teacher), str(file), str(tmp_path / "cache"), *options.split()])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert (report["sequences"], report["positions"]) == (4, 22)
    windows = pack(
        open_tokens(file, tokenizer=tokenizer),
        6,
        eos=corpus.EOS,
        keep_short=True,
        first_sequence_id=7,
    )
    direct = sl.capture(
        LlamaForCausalLM.from_pretrained(teacher),
        windows,
        tmp_path / "direct",
        rounds=5,
        tokenizer=tokenizer,
        progress=False,
    )
    made = sl.open(tmp_path / "cache")
    assert made.config == direct.config
    assert made.metadata == direct.metadata
    assert made.sequence_ids.tolist() == [7, 8, 9, 10]
    for index in range(4):
        assert made[index].input_ids.tolist() == windows[index].tokens.tolist()
        assert made[index].token_ids.tolist() == direct[index].token_ids.tolist()
        assert made[index].counts.tolist() == direct[index].counts.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--length is needed to cut"),
        (["--length", "99"], "more than the model's context of 16"),
        (["--length", "4", "--column", "text"], "column 'text' has no effect"),
        (
            ["--length", "4", "--first-sequence-id", "1", "--sequence-ids", "{tmp}/ids.npy"],
            "--first-sequence-id has no effect beside --sequence-ids",
        ),
    ],
)
def test_wrong_options_of_a_corpus_are_usage_errors(
    capsys: Any, teacher: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    np.save(tmp_path / "s.npy", np.arange(200) % corpus.VOCAB)
    np.save(tmp_path / "ids.npy", np.arange(50))
    arguments = [option.format(tmp=tmp_path) for option in options]
    base = ["capture", str(teacher), str(tmp_path / "s.npy"), str(tmp_path / "cache")]
    assert main([*base, *arguments]) == 2
    assert message in capsys.readouterr().err
