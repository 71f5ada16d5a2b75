"""Makes the helper modules of this folder importable, and a small tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not
import token_corpora


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A Hugging Face tokenizer with a token a word."""
    return token_corpora.word_tokenizer()


@pytest.fixture(scope="session")
def tokenizer_path(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(path)
    return path
