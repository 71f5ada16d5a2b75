"""`sl.capture` end to end on tiny teachers: what is stored, and that nothing else can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from capture_models import CONTEXT, VOCABULARY, HeadlessModel, PlainModel, llama
from captured import Tokenizer, contents

import sparselogits as sl
from sparselogits.capture import CaptureProgress

WINDOWS = np.random.default_rng(0).integers(0, VOCABULARY, (7, 12))


def test_the_cache_holds_the_draws_of_the_models_own_logits(tmp_path: Path) -> None:
    """Position t is p(token t+1 | tokens <= t) = logits[t], drawn with its own key."""
    model = llama()
    cache = sl.capture(model, WINDOWS, tmp_path / "c", rounds=30, seed=5, progress=False)
    assert len(cache) == 7
    assert cache.num_positions == 84
    for index, window in enumerate(WINDOWS):
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(window)[None]).logits[0]
        keys = np.stack([np.full(12, index), np.arange(12)], axis=1)
        draws = sl.sample(logits.numpy(), rounds=30, seed=5, position_keys=keys)
        seq = cache[index]
        assert seq.sequence_id == index
        np.testing.assert_array_equal(seq.input_ids, window)
        np.testing.assert_array_equal(seq.offsets, draws.offsets)
        np.testing.assert_array_equal(seq.token_ids, draws.token_ids)
        np.testing.assert_array_equal(seq.counts, draws.counts)


def test_draws_do_not_depend_on_batch_or_chunk(tmp_path: Path) -> None:
    """Peers' defect 5: other positions' targets after a change of batch size."""
    model = llama()
    expected = None
    for number, (batch_size, chunk_rows) in enumerate([(1, 1), (2, 7), (3, 5), (8, 64), (7, 84)]):
        cache = sl.capture(
            model,
            WINDOWS,
            tmp_path / str(number),
            batch_size=batch_size,
            chunk_rows=chunk_rows,
            progress=False,
        )
        expected = expected or contents(cache)
        assert contents(cache) == expected


def test_draws_follow_the_sequence_id_not_the_order(tmp_path: Path) -> None:
    """Peers' defects 4 and 5: every sequence is itself, wherever it comes in the iteration."""
    model = llama()
    forward = sl.capture(model, WINDOWS, tmp_path / "a", progress=False)
    order = [3, 6, 0, 2, 1, 5, 4]
    shuffled = sl.capture(
        model, WINDOWS[order], tmp_path / "b", sequence_ids=order, batch_size=2, progress=False
    )
    assert contents(shuffled) == contents(forward)
    for index, window in enumerate(WINDOWS[order]):
        assert shuffled.fingerprints[index] == sl.fingerprint_tokens(window)
    other = sl.capture(model, WINDOWS, tmp_path / "c", sequence_ids=range(10, 17), progress=False)
    assert [row[2:] for row in contents(other)] != [row[2:] for row in contents(forward)]


def test_no_draw_is_dropped(tmp_path: Path) -> None:
    """Peers' defect 3: all tokens that were drawn are kept, however many."""
    model = llama(initializer_range=0.0)  # uniform: as many unique ids as there can be
    cache = sl.capture(model, WINDOWS[:1], tmp_path / "c", rounds=200, progress=False)
    seq = cache[0]
    assert seq.counts is not None
    assert np.diff(seq.offsets).min() > 64
    np.testing.assert_array_equal(np.add.reduceat(seq.counts, seq.offsets[:-1], dtype=int), 200)


def test_masked_positions_are_empty_and_move_nothing(tmp_path: Path) -> None:
    model = llama()
    mask = np.random.default_rng(1).random(WINDOWS.shape) < 0.5
    mask[2] = False
    full = sl.capture(model, WINDOWS, tmp_path / "full", progress=False)
    some = sl.capture(
        model, WINDOWS, tmp_path / "some", targets_mask=mask, batch_size=3, progress=False
    )
    for index in range(len(WINDOWS)):
        a, b = full[index], some[index]
        np.testing.assert_array_equal(a.input_ids, b.input_ids)
        for t in range(WINDOWS.shape[1]):
            kept = slice(*b.offsets[t : t + 2])
            if mask[index, t]:
                whole = slice(*a.offsets[t : t + 2])
                np.testing.assert_array_equal(b.token_ids[kept], a.token_ids[whole])
                np.testing.assert_array_equal(b.weights[kept], a.weights[whole])
            else:
                assert b.offsets[t] == b.offsets[t + 1]


def test_ragged_and_empty_windows(tmp_path: Path) -> None:
    model = llama()
    windows = [WINDOWS[0, :5], [], WINDOWS[1], WINDOWS[2, :1]]
    cache = sl.capture(model, windows, tmp_path / "c", progress=False)
    assert cache.sequence_lengths.tolist() == [5, 0, 12, 1]
    for index, window in enumerate(windows):
        alone = sl.capture(
            model, [window], tmp_path / f"{index}", sequence_ids=[index], progress=False
        )
        assert contents(alone)[0] == contents(cache)[index]


def test_nothing_to_capture_is_an_empty_cache(tmp_path: Path) -> None:
    assert len(sl.capture(llama(), [], tmp_path / "c", progress=False)) == 0


def test_importance_weights_without_tokens(tmp_path: Path) -> None:
    model = llama()
    cache = sl.capture(
        model,
        WINDOWS[:2],
        tmp_path / "c",
        proposal_temperature=0.8,
        weight_dtype="bfloat16",
        store_tokens=False,
        progress=False,
    )
    assert cache.config.value_kind == "weights"
    assert cache[0].input_ids is None
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(WINDOWS[:1])).logits[0]
    keys = np.stack([np.zeros(12, int), np.arange(12)], axis=1)
    draws = sl.sample(logits.numpy(), proposal_temperature=0.8, position_keys=keys)
    np.testing.assert_array_equal(cache[0].token_ids, draws.token_ids)
    np.testing.assert_allclose(cache[0].weights, draws.weights, rtol=2**-7)  # stochastic rounding


def test_the_vocabulary_is_the_tokenizers(tmp_path: Path) -> None:
    tokenizer = Tokenizer(VOCABULARY - 9)  # 9 padded rows in the head
    windows = WINDOWS % len(tokenizer)
    cache = sl.capture(llama(), windows, tmp_path / "c", tokenizer=tokenizer, progress=False)
    assert cache.config.vocab_size == VOCABULARY - 9
    assert cache.config.tokenizer_fingerprint == sl.fingerprint_tokenizer(tokenizer)
    assert max(int(cache[i].token_ids.max()) for i in range(7)) < VOCABULARY - 9
    given = sl.capture(llama(), windows % 50, tmp_path / "d", vocab_size=50, progress=False)
    assert given.config.vocab_size == 50


def test_a_head_smaller_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sl.VocabularyMismatchError, match=r"has 98 tokens, but .* only 97 rows"):
        sl.capture(llama(), WINDOWS, tmp_path / "c", tokenizer=Tokenizer(98), progress=False)
    with pytest.raises(sl.VocabularyMismatchError, match="vocab_size has 100 tokens"):
        sl.capture(llama(), WINDOWS, tmp_path / "c", vocab_size=100, progress=False)
    assert not (tmp_path / "c").exists()


def test_metadata_tells_where_the_draws_come_from(tmp_path: Path) -> None:
    model = llama().bfloat16()
    cache = sl.capture(
        model, WINDOWS, tmp_path / "c", seed=3, metadata={"corpus": "x", "teacher": "mine"},
        progress=False,
    )  # fmt: skip
    facts = cache.metadata
    assert facts["corpus"] == "x"
    assert facts["teacher"] == "mine"
    assert facts["teacher_dtype"] == "bfloat16"
    assert facts["head_dtype"] == "float32"
    assert facts["seed"] == "3"
    assert facts["torch_version"] == torch.__version__
    assert {"bos_rule", "window_packing", "transformers_version", "sparselogits_version"} <= set(
        facts
    )
    with pytest.raises(sl.InvalidArgumentError, match=r"metadata\['seed'\] is '4', but"):
        sl.capture(model, WINDOWS, tmp_path / "d", metadata={"seed": "4"}, progress=False)
    with pytest.raises(sl.InvalidArgumentError, match="metadata must map str to str"):
        sl.capture(model, WINDOWS, tmp_path / "d", metadata={"n": 4}, progress=False)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        (WINDOWS + VOCABULARY, "window 0 has token id .* outside"),
        (WINDOWS.astype(float), "windows must hold integers"),
        (np.zeros((1, CONTEXT + 1), int), f"more than the model's context of {CONTEXT}"),
    ],
)
def test_wrong_windows_leave_no_cache_behind(windows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        sl.capture(llama(), windows, tmp_path / "c", progress=False)
    with pytest.raises(sl.CacheIOError):
        sl.open(tmp_path / "c")
    assert len(sl.capture(llama(), WINDOWS, tmp_path / "c", progress=False)) == 7


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_names_its_position(value: float, tmp_path: Path) -> None:
    model = PlainModel()
    finish = model.finish
    # Token 5 poisons its own row only, so that the self-check on other ids passes.
    model.finish = lambda logits: finish(logits)  # type: ignore[method-assign]
    forward = model.forward

    def poisoned(input_ids: torch.Tensor) -> torch.Tensor:
        logits = forward(input_ids)
        return logits.masked_fill((input_ids == 5)[..., None], value)

    model.forward = poisoned  # type: ignore[method-assign]
    windows = np.full((3, 6), 7)
    windows[1, 4] = 5
    with pytest.raises(sl.InvalidArgumentError, match="sequence 31, position 4 hold NaN or"):
        sl.capture(model, windows, tmp_path / "c", sequence_ids=[30, 31, 32], progress=False)


def test_excluded_tokens_are_never_drawn(tmp_path: Path) -> None:
    model = PlainModel()
    model.head.bias.data[: VOCABULARY // 2] = -torch.inf
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    assert min(int(cache[i].token_ids.min()) for i in range(7)) >= VOCABULARY // 2


@pytest.mark.parametrize("name", ["batch_size", "chunk_rows"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_sizes_must_be_positive_integers(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=f"{name} must be a positive integer"):
        sl.capture(llama(), WINDOWS, tmp_path / "c", progress=False, **{name: value})


def test_a_module_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="HeadlessModel has no output head"):
        sl.capture(HeadlessModel(), WINDOWS, tmp_path / "c", progress=False)


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = llama().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not torch.is_inference_mode_enabled()
    model(input_ids=torch.from_numpy(WINDOWS)).logits.sum().backward()


def test_progress_counts_every_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports: list[CaptureProgress] = []
    sl.capture(llama(), WINDOWS, tmp_path / "c", progress=reports.append)
    assert (reports[-1].positions, reports[-1].sequences) == (84, 7)
    assert reports[-1].total_positions == 84
    assert reports[-1].seconds_left == 0
    assert reports[-1].positions_per_second > 0
    assert "84 of 84 positions" in str(reports[-1])
    sl.capture(llama(), WINDOWS, tmp_path / "d", progress=True)
    assert capsys.readouterr().err == ""  # no terminal, no line
