"""Windows of several documents: every document gets the logits that it gets alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from capture_models import FAMILIES, VOCABULARY, PlainModel, bloom, gemma2, llama, mistral, opt
from torch import nn

import sparselogits as sl
from sparselogits.capture import CacheSink, Window, capture_many, documents
from sparselogits.capture.documents import DocumentRuns, PackedBatch
from sparselogits.capture.modes import float32_head
from sparselogits.capture.replay import SplitModel
from sparselogits.capture.teacher_rows import teacher_rows
from sparselogits.capture.window_set import WindowRange
from sparselogits.errors import InvalidArgumentError

PROBE = torch.arange(16).view(2, 8) * 5
LENGTHS = ([9, 1, 4, 6], [20], [2, 11, 5], [1])  # documents of each window
# What transformers chooses (sdpa, except for Gemma 2), and eager attention.
OPTIONS: list[dict[str, str]] = [{}, {"attn_implementation": "eager"}]


def windows() -> list[Window]:
    """Ragged windows of one and of several documents."""
    rng = np.random.default_rng(4)
    made = []
    for index, lengths in enumerate(LENGTHS):
        tokens = rng.integers(0, VOCABULARY, sum(lengths))
        starts = np.cumsum([0, *lengths[:-1]])
        made.append(Window(index, index, tokens, np.ones(len(tokens), np.bool_), starts))
    return made


def packed_logits(model: nn.Module, batch: list[Window]) -> torch.Tensor:
    split = SplitModel(model, VOCABULARY, PROBE)
    rows = teacher_rows(split, DocumentRuns(split, PROBE), batch, chunk_rows=17)
    return torch.cat([chunk.logits for chunk in rows])


def alone_logits(model: nn.Module, batch: list[Window]) -> torch.Tensor:
    logits = []
    for window in batch:
        assert window.document_starts is not None
        for tokens in np.split(window.tokens, window.document_starts[1:]):
            ids = torch.from_numpy(tokens)[None]
            logits.append(model(input_ids=ids, use_cache=False).logits[0])
    return torch.cat(logits)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_get_the_logits_of_the_documents_alone(
    family: str, options: dict[str, str]
) -> None:
    model = FAMILIES[family](**options)
    with torch.inference_mode():
        packed, alone = packed_logits(model, windows()), alone_logits(model, windows())
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
        # Without document starts the same rows differ: the test above can fail.
        whole = [Window(w.index, w.index, w.tokens, w.captured) for w in windows()]
        assert (packed_logits(model, whole) - alone).abs().max() > 0.05


@pytest.mark.parametrize("family", [gemma2, FAMILIES["gemma3"], mistral])
@pytest.mark.parametrize("options", OPTIONS)
def test_sliding_windows_slide_inside_documents(family: Any, options: dict[str, str]) -> None:
    """Documents longer than the sliding window, which a mask of ours would have lifted."""
    model = family(sliding_window=4, **options)
    with torch.inference_mode():
        packed, alone = packed_logits(model, windows()), alone_logits(model, windows())
        torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
        unlimited = family(sliding_window=32, **options)
        assert (packed_logits(unlimited, windows()) - alone).abs().max() > 0.05


def way_of(model: nn.Module) -> str:
    split = SplitModel(model, VOCABULARY, PROBE)
    return DocumentRuns(split, PROBE)._find_way().__name__


def test_opt_needs_a_mask_and_llama_does_not() -> None:
    """OPT makes its mask without position ids (transformers 5.23), so both ways are in use."""
    with torch.inference_mode():
        assert way_of(llama()) == "_by_position_ids"
        assert way_of(opt()) == "_by_mask"


def test_flash_attention_gets_one_row_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads documents from position ids only where the batch is one row.

    sdpa stands in for its kernels, which need a GPU: it gives the same for one row.
    """
    monkeypatch.setattr(documents, "attention_implementation", lambda _: "flash_attention_2")
    model = llama()
    shapes = []
    model.register_forward_pre_hook(
        lambda _, args, kw: shapes.append((tuple(kw["input_ids"].shape), "attention_mask" in kw)),
        with_kwargs=True,
    )
    with torch.inference_mode():
        assert way_of(model) == "_by_flat_row"
        packed = packed_logits(model, windows())
        assert ((1, sum(map(sum, LENGTHS))), False) in shapes
        torch.testing.assert_close(packed, alone_logits(model, windows()), rtol=1e-4, atol=1e-4)


def test_sliding_layers_never_get_a_mask_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand for them too; the probe's documents are too short to show it."""

    def not_heeded(model: SplitModel, batch: PackedBatch) -> torch.Tensor:
        return model.hidden(batch.ids)

    monkeypatch.setattr(documents, "_by_position_ids", not_heeded)
    with torch.inference_mode():
        assert way_of(llama()) == "_by_mask"
        with pytest.raises(InvalidArgumentError, match="MistralForCausalLM does not keep"):
            way_of(mistral(sliding_window=16))


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_a_bf16_body_keeps_documents_apart_too(family: str) -> None:
    model = FAMILIES[family]().bfloat16()
    with torch.inference_mode(), float32_head(model):
        packed, alone = packed_logits(model, windows()), alone_logits(model, windows())
    assert (packed - alone).abs().max() <= 0.03 * alone.abs().max()


class IgnoresDocuments(PlainModel):
    """Takes position ids and a mask and heeds neither, as recurrent models do."""

    def forward(  # type: ignore[override]
        self, input_ids: torch.Tensor, attention_mask: Any = None, position_ids: Any = None
    ) -> torch.Tensor:
        return super().forward(input_ids)


def leaky_bf16() -> nn.Module:
    """A real family in bf16 whose masks and position ids never arrive."""
    model = llama().bfloat16()
    forward = model.forward
    model.forward = lambda *args, position_ids=None, attention_mask=None, **kw: forward(  # type: ignore[method-assign]
        *args, **kw
    )
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (IgnoresDocuments, r"logits differ by .* one document each"),
        (leaky_bf16, r"logits differ by .* one document each"),
        (PlainModel, "unexpected keyword argument 'position_ids'"),
        (bloom, "BloomForCausalLM does not keep the documents of a window apart"),
    ],
)
def test_a_model_that_mixes_documents_is_refused(build: Any, message: str) -> None:
    model = build()
    with (
        torch.inference_mode(),
        float32_head(model),
        pytest.raises(InvalidArgumentError, match=message),
    ):
        packed_logits(model, windows())


def test_windows_of_one_document_need_no_way_of_keeping_them_apart() -> None:
    whole = [Window(0, 0, np.arange(5), np.ones(5, np.bool_), np.array([0]))]
    with torch.inference_mode():
        assert packed_logits(PlainModel(), whole).shape == (5, VOCABULARY)


class Source(WindowRange):
    """The windows above, as a set that says what they are."""

    def __init__(self, **facts: str) -> None:
        super().__init__(len(LENGTHS))
        self._facts = facts

    @property
    def description(self) -> dict[str, str]:
        return self._facts

    def _window(self, place: int) -> Window:
        return windows()[place]


MASKED = {"document_mask": "no attention across documents", "position_ids": "from 0 in each"}


def test_documents_are_captured_recorded_and_checked(tmp_path: Path) -> None:
    model = llama()
    cache = sl.capture(model, Source(**MASKED), tmp_path / "c", seed=3, progress=False)
    assert {key: cache.metadata[key] for key in MASKED} == MASKED
    with torch.inference_mode():
        logits = alone_logits(model, windows()).numpy()
    keys = np.concatenate([[(w.sequence_id, t) for t in range(len(w.tokens))] for w in windows()])
    draws = sl.sample(logits, rounds=50, seed=3, position_keys=keys)
    stored = cache.read_sequences(np.arange(len(cache)))
    np.testing.assert_array_equal(stored.token_ids, draws.token_ids)
    np.testing.assert_array_equal(stored.counts, draws.counts)
    report = sl.check_capture(model, cache, Source(**MASKED), fraction=1.0, progress=False)
    assert (report.ok, report.redraw_match) == (True, 1)
    whole = [window.tokens for window in windows()]
    wrong = sl.check_capture(model, cache, whole, fraction=1.0, progress=False)
    assert [problem.name for problem in wrong.problems] == ["windows", "distribution"]


def test_documents_are_not_captured_into_a_cache_that_denies_them(tmp_path: Path) -> None:
    message = r"window 0 has several documents, but .* says document_mask 'none'"
    with pytest.raises(InvalidArgumentError, match=message):
        sl.capture(llama(), Source(), tmp_path / "c", progress=False)
    config = sl.CacheConfig(vocab_size=VOCABULARY)
    with (
        sl.CacheWriter(tmp_path / "d", config) as writer,
        pytest.raises(InvalidArgumentError, match=message),
    ):
        capture_many(llama(), Source(), [CacheSink(writer, 0)], progress=False)


def test_facts_of_a_source_do_not_replace_those_of_the_run(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"metadata\['seed'\] is '7', but"):
        sl.capture(llama(), Source(seed="7"), tmp_path / "c", progress=False)
