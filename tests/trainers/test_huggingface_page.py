"""docs/huggingface.md is a program that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tiny import student
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAGE = Path(__file__).parents[2] / "docs/huggingface.md"
WORDS = 50


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning 2.6 on torch 2.13
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_models_and_texts(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        if block.startswith("import torch"):
            log = names["trainer"].state.log_history
            losses = [entry["loss"] for entry in log if "loss" in entry]
            evaluations = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
            assert losses[-1] < losses[0]
            assert evaluations[1] < evaluations[0]


def make_models_and_texts(path: Path) -> None:
    """Tiny models of one vocabulary, and texts of its words."""
    words = {f"w{i}": i for i in range(WORDS)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", eos_token="w2")
    for name, seed in (("my-teacher", 1), ("my-student", 0)):
        model = student(seed=seed, vocab_size=WORDS, max_position_embeddings=512)
        model.save_pretrained(path / name)
        tokenizer.save_pretrained(path / name)
    rng = np.random.default_rng(0)
    for name, windows in (("corpus.txt", 64), ("held-out.txt", 9)):
        text = " ".join(f"w{i}" for i in rng.integers(0, WORDS, windows * 512))
        (path / name).write_text(text)
