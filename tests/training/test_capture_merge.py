"""What docs/merge_repack.md says of parallel captures and of captures of dropped sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from capture_models import VOCABULARY, gpt2, llama
from captured import contents

import sparselogits as sl

WINDOWS = np.random.default_rng(3).integers(0, VOCABULARY, (9, 10))


def test_parallel_captures_merge_to_what_one_capture_gives(tmp_path: Path) -> None:
    model = llama()
    whole = sl.capture(model, WINDOWS, tmp_path / "whole", batch_size=1, progress=False)
    for k in range(2):
        mine = range(k, len(WINDOWS), 2)
        path = tmp_path / f"cache.{k}"
        sl.capture(model, WINDOWS[mine], path, sequence_ids=mine, batch_size=1, progress=False)
    sl.merge([tmp_path / "cache.0", tmp_path / "cache.1"], tmp_path / "merged")
    sl.repack(tmp_path / "merged", tmp_path / "ordered", order="sequence_id")
    assert contents(sl.open(tmp_path / "ordered")) == contents(whole)


def test_dropped_sequences_are_captured_again_and_merged(tmp_path: Path) -> None:
    model = llama()
    whole = sl.capture(model, WINDOWS, tmp_path / "whole", batch_size=1, progress=False)
    bad = [2, 7]
    keep = [i for i in whole.sequence_ids.tolist() if i not in bad]
    sl.repack(tmp_path / "whole", tmp_path / "sound", sequence_ids=keep)
    sl.capture(
        model, WINDOWS[bad], tmp_path / "again", sequence_ids=bad, batch_size=1, progress=False
    )
    sl.merge([tmp_path / "sound", tmp_path / "again"], tmp_path / "merged")
    sl.repack(tmp_path / "merged", tmp_path / "ordered", order="sequence_id")
    assert contents(sl.open(tmp_path / "ordered")) == contents(whole)


def test_captures_of_different_teachers_do_not_merge(tmp_path: Path) -> None:
    for name, model in (("a", llama()), ("b", gpt2())):
        ids = range(5) if name == "a" else range(5, 9)
        sl.capture(model, WINDOWS[ids], tmp_path / name, sequence_ids=ids, progress=False)
    with pytest.raises(sl.MismatchError, match="different teachers do not go into one cache"):
        sl.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
