"""The examples of docs/tokens.md run, and the package imports nothing that is optional."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "tokens.md"
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def corpus_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corpus.write_jsonl(tmp_path / "corpus.jsonl", corpus.TEXTS * 150)


def test_the_examples_in_python_and_shell_make_the_same_cache(
    corpus_here: None, tmp_path: Path, tokenizer: Any
) -> None:
    assert [kind for kind, _ in BLOCKS] == ["python", "bash"]
    model = corpus.teacher(1024)
    exec(BLOCKS[0][1], {"tokenizer": tokenizer, "teacher": model})
    (tmp_path / "cache").rename("by_python")
    model.save_pretrained("teacher")
    tokenizer.save_pretrained("teacher")
    for line in BLOCKS[1][1].splitlines():
        assert main(shlex.split(line)[1:]) == 0
    one, other = sl.open("by_python"), sl.open("cache")
    assert len(one) == len(other) == 3
    for index in range(3):
        assert one[index].input_ids.tolist() == other[index].input_ids.tolist()
    different = {key for key in one.metadata if one.metadata[key] != other.metadata[key]}
    assert different <= {"token_source", "teacher"}
    assert one.metadata["token_source"].split()[-1] == other.metadata["token_source"].split()[-1]


def test_importing_tokens_leaves_optional_packages_alone() -> None:
    code = "import sparselogits.tokens, sparselogits.cli.token_options, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    optional = {"torch", "transformers", "tokenizers", "pyarrow", "datasets"}
    assert not optional & set(done.stdout.split())
