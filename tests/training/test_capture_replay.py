"""The split forward: chunked logits are the model's own logits, to the last bit."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

import torch
from capture_models import (
    CONTEXT,
    FAMILIES,
    POST_PROCESSING,
    VOCABULARY,
    CentredOverWindow,
    PlainModel,
    RoundingModel,
    llama,
)

from sparselogits.capture.modes import evaluation_mode, float32_head
from sparselogits.capture.replay import SplitModel
from sparselogits.errors import InvalidArgumentError

PROBE = torch.arange(10).view(2, 5) * 8
IDS = torch.randint(0, VOCABULARY, (3, 20), generator=torch.Generator().manual_seed(1))


def chunked(split: SplitModel, ids: torch.Tensor, rows: int) -> torch.Tensor:
    hidden, flat = split.hidden(ids).flatten(0, 1), ids.flatten()
    parts = [
        split.logits(hidden[i : i + rows], flat[i : i + rows]) for i in range(0, len(flat), rows)
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("rows", [1, 7, 60])
@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_equals_full_bit_for_bit(family: str, rows: int) -> None:
    model = FAMILIES[family]()
    with torch.inference_mode(), float32_head(model):
        full = model(input_ids=IDS, use_cache=False).logits.flatten(0, 1)
        assert torch.equal(chunked(SplitModel(model, VOCABULARY, PROBE), IDS, rows), full)


@pytest.mark.parametrize("family", POST_PROCESSING)
def test_the_head_alone_would_be_wrong(family: str) -> None:
    """Guards the tests above: these families do change logits after the head."""
    model = FAMILIES[family]()
    with torch.inference_mode():
        split = SplitModel(model, VOCABULARY, PROBE)
        hidden = split.hidden(IDS).flatten(0, 1)
        head = model.get_output_embeddings()(hidden)
        assert (head - chunked(split, IDS, 60)).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_body_with_float32_head(family: str) -> None:
    model = FAMILIES[family]().bfloat16()
    head = model.get_output_embeddings()
    before = head.weight
    with torch.inference_mode(), float32_head(model):
        logits = chunked(SplitModel(model, VOCABULARY, PROBE), IDS, 16)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    assert head.weight is before
    assert before.dtype == torch.bfloat16
    assert "forward" not in head.__dict__


def test_float32_head_gives_the_exact_product_of_bf16_states() -> None:
    model = llama().bfloat16()
    with torch.inference_mode(), float32_head(model):
        split = SplitModel(model, VOCABULARY, PROBE)
        hidden = split.hidden(IDS).flatten(0, 1)
        logits = split.logits(hidden, IDS.flatten())
    expected = hidden.double() @ model.get_output_embeddings().weight.double().T
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_float32_head_ignores_autocast() -> None:
    model = llama()
    with torch.inference_mode():
        hidden = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
        expected = model.get_output_embeddings()(hidden)
        with float32_head(model), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(model.get_output_embeddings()(hidden), expected)


def test_modes_are_undone_when_an_error_passes() -> None:
    model = llama().train()
    model.model.layers[0].eval()  # type: ignore[union-attr, index, operator]
    flags = [module.training for module in model.modules()]

    def fail_inside() -> None:
        with evaluation_mode(model), float32_head(model):
            assert not any(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert [module.training for module in model.modules()] == flags
    assert "forward" not in model.get_output_embeddings().__dict__


def test_padded_rows_of_the_vocabulary_are_cut() -> None:
    model = llama()
    with torch.inference_mode():
        logits = chunked(SplitModel(model, VOCABULARY - 7, PROBE), IDS, 16)
        full = model(input_ids=IDS).logits.flatten(0, 1)
    assert torch.equal(logits, full[:, : VOCABULARY - 7])


def test_right_padding_changes_nothing_before_it() -> None:
    model = llama()
    mask = torch.ones_like(IDS)
    mask[1, 12:] = 0
    with torch.inference_mode():
        split = SplitModel(model, VOCABULARY, PROBE)
        padded = split.hidden(IDS, mask)
        alone = split.hidden(IDS[1:2, :12])
    torch.testing.assert_close(padded[1, :12], alone[0], rtol=1e-5, atol=1e-5)


def test_a_plain_module_works() -> None:
    model = PlainModel()
    with torch.inference_mode():
        logits = chunked(SplitModel(model, VOCABULARY, PROBE), IDS, 9)
        assert torch.equal(logits, model(IDS).flatten(0, 1))


def test_the_self_check_refuses_what_cannot_be_replayed() -> None:
    with torch.inference_mode(), pytest.raises(InvalidArgumentError, match=r"body: logits differ"):
        SplitModel(CentredOverWindow(), VOCABULARY, PROBE)


def test_the_self_check_refuses_rounded_logits() -> None:
    model = RoundingModel().bfloat16()
    expected = pytest.raises(InvalidArgumentError, match="rounds its logits below float32")
    with torch.inference_mode(), float32_head(model), expected:
        SplitModel(model, VOCABULARY, PROBE)


def test_no_forward_sees_more_rows_than_a_chunk() -> None:
    """The point of it all: the head never gets the whole batch."""
    model = llama()
    seen = []
    with torch.inference_mode():
        split = SplitModel(model, VOCABULARY, PROBE)
        hook = model.get_output_embeddings().register_forward_pre_hook(
            lambda _, args: seen.append(args[0].shape)
        )
        ids = torch.zeros((8, CONTEXT), dtype=torch.int64)
        chunked(split, ids, 64)
        hook.remove()
    assert seen == [(1, 64, 16)] * 4
