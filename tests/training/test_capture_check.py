"""`check_capture`: a right cache passes, and each way of being wrong is caught by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from capture_models import VOCABULARY, PlainModel, gpt2, llama
from captured import Tokenizer, contents
from torch import nn

import sparselogits as sl
from sparselogits.capture import CaptureCheck, GivenWindows
from sparselogits.capture.recorded_draws import recorded_draws

WINDOWS = np.random.default_rng(0).integers(0, VOCABULARY, (20, 16))
SAMPLERS = ("multinomial", "systematic", "stratified")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return llama()


def check(model: nn.Module, cache: sl.Cache, **options: Any) -> CaptureCheck:
    return sl.check_capture(model, cache, **{"fraction": 0.5, "progress": False, **options})


def names(report: CaptureCheck) -> list[str]:
    return [problem.name for problem in report.problems]


def rewritten(
    cache: sl.Cache,
    path: Path,
    metadata: dict[str, str] | None = None,
    shift: int = 0,
    **config: Any,
) -> sl.Cache:
    """The same draws at temperature 1, under other facts or at other positions."""
    rounds, sampler = cache.config.rounds, cache.config.sampler
    config = sl.CacheConfig(vocab_size=VOCABULARY, rounds=rounds, sampler=sampler)
    with sl.CacheWriter(path, config, {**cache.metadata, **(metadata or {})}) as writer:
        for seq in cache:
            assert seq.counts is not None
            rows = list(zip(np.split(seq.token_ids, seq.offsets[1:-1]),
                            np.split(seq.counts, seq.offsets[1:-1]), strict=True))  # fmt: skip
            rows = rows[shift:] + rows[:shift]
            ids, counts = (np.concatenate(column) for column in zip(*rows, strict=True))
            offsets = np.cumsum([0, *(len(row[0]) for row in rows)])
            writer.append(seq.input_ids, offsets, ids, counts, sequence_id=seq.sequence_id)
    return sl.open(path)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_right_cache_passes(sampler: str, model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", sampler=sampler, seed=3, progress=False)
    report = check(model, cache)
    assert report.ok
    assert (report.problems, report.notes, report.sequences) == ([], [], 10)
    assert report.draws is not None
    assert (report.draws.positions, report.draws.draws) == (160, 8000)
    assert report.draws.p_value > 1e-4
    assert abs(report.draws.excess_z) < 4
    assert report.redraw_match == report.redraw_positions == 1
    assert report.chance_match is not None
    assert report.chance_match < 0.9


@pytest.mark.parametrize("weight_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("proposal_temperature", [0.7, 1.3])
def test_importance_weights_are_checked_too(
    weight_dtype: str, proposal_temperature: float, model: nn.Module, tmp_path: Path
) -> None:
    cache = sl.capture(
        model,
        WINDOWS,
        tmp_path / "c",
        temperature=0.9,
        proposal_temperature=proposal_temperature,
        weight_dtype=weight_dtype,
        progress=False,
    )
    report = check(model, cache)
    assert (report.ok, report.redraw_positions) == (True, 1)
    other = check(gpt2(), cache)
    assert "distribution" in names(other)


def test_an_offset_is_drawn_again(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(
        model, WINDOWS, tmp_path / "c", sampler="systematic", offset=0.5, progress=False
    )
    assert cache.metadata["systematic_offset"] == "0.5"
    assert check(model, cache).redraw_match == 1
    without = sl.capture(model, WINDOWS, tmp_path / "d", sampler="systematic", progress=False)
    assert "systematic_offset" not in without.metadata
    wrong = rewritten(without, tmp_path / "e", {"systematic_offset": "0.5"})
    assert names(check(model, wrong)) == ["redraw"]


@pytest.mark.parametrize("sampler", ["systematic", "multinomial"])
def test_a_sum_of_caches_is_drawn_again_part_by_part(
    sampler: str, model: nn.Module, tmp_path: Path
) -> None:
    parts: list[dict[str, Any]] = [{"offset": 0.25}, {"offset": 0.75}]
    if sampler == "multinomial":
        parts = [{"seed": 1, "rounds": 20}, {"seed": 2, "rounds": 30}]
    for number, part in enumerate(parts):
        sl.capture(model, WINDOWS, tmp_path / str(number), sampler=sampler, progress=False, **part)
    sl.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "sum", rounds="add")
    summed = sl.open(tmp_path / "sum")
    report = check(model, summed)
    assert (report.ok, report.redraw_match, report.redraw_positions) == (True, 1, 1)
    wrong = {"seeds": "1,3"} if sampler == "multinomial" else {"systematic_offsets": "0.0,0.5"}
    assert names(check(model, rewritten(summed, tmp_path / "wrong", wrong))) == ["redraw"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"seed": "x"},
        {"seed": "-1"},
        {"seed": str(2**64)},
        {"seeds": "1,2"},
        {"seeds": "1,2", "added_rounds": "20,20"},
        {"seed": "1", "added_rounds": "50,0"},
        {"seed": "1", "systematic_offset": "half"},
    ],
)
def test_draws_whose_making_is_not_recorded(facts: dict[str, str]) -> None:
    assert recorded_draws(sl.CacheConfig(vocab_size=7, rounds=50), facts) == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_temperature_is_caught(sampler: str, model: nn.Module, tmp_path: Path) -> None:
    warm = sl.capture(
        model, WINDOWS, tmp_path / "c", sampler=sampler, temperature=1.25, progress=False
    )
    report = check(model, rewritten(warm, tmp_path / "d"))
    assert names(report) == ["distribution"]
    assert report.verdict == "mismatch"
    assert re.search(r"a temperature of about 1\.[1-4]", report.problems[0].message)
    assert report.draws is not None
    assert report.draws.p_value < 1e-9
    assert report.draws.excess > 0.1


def test_another_seed_is_caught_by_drawing_again(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", seed=1, progress=False)
    report = check(model, rewritten(cache, tmp_path / "d", {"seed": "2"}))
    assert names(report) == ["redraw"]
    assert report.draws is not None
    assert report.draws.p_value > 1e-4
    assert report.redraw_match is not None
    assert report.chance_match is not None
    assert abs(report.redraw_match - report.chance_match) < 0.1


@pytest.mark.parametrize(("shift", "place"), [(1, "t+1"), (-1, "t-1")])
def test_draws_off_by_one_position_are_caught(
    shift: int, place: str, model: nn.Module, tmp_path: Path
) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    report = check(model, rewritten(cache, tmp_path / "d", shift=shift))
    assert names(report) == ["distribution", "shift"]
    assert f"fit position {place}" in report.problems[1].message


def test_another_model_is_caught(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    assert names(check(gpt2(), cache)) == ["teacher", "distribution"]
    barely = llama(initializer_range=0.301)  # draws cannot tell it; its weights can
    assert names(check(barely, cache)) == ["teacher"]
    same_in_bf16 = check(llama().bfloat16(), cache)
    assert same_in_bf16.ok
    assert same_in_bf16.notes == ["the teacher was float32 and is bfloat16 now"]


def test_a_sure_teacher_that_never_said_so_is_caught(tmp_path: Path) -> None:
    """No replicate ever leaves the first cell: only the e-value can tell."""
    says_3, says_4 = PlainModel(), PlainModel()
    for model, token in ((says_3, 3), (says_4, 4)):
        model.head.weight.data.zero_()
        model.head.bias.data.zero_()
        model.head.bias.data[token] = 38
    cache = sl.capture(says_4, WINDOWS[:4], tmp_path / "c", progress=False)
    report = check(says_3, cache)
    assert report.draws is not None
    assert (report.draws.degrees_of_freedom, report.draws.excess_z) == (0, 0)
    assert names(report) == ["teacher", "distribution"]
    right = check(says_4, cache)
    assert right.ok
    assert right.notes == ["the teacher is so sure that every seed gives the same draws"]


def test_impossible_draws_are_caught(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    excluding = llama()
    head = nn.Linear(16, VOCABULARY)
    head.weight.data = excluding.get_output_embeddings().weight.data
    head.bias.data.zero_()
    head.bias.data[17] = -np.inf
    excluding.set_output_embeddings(head)
    assert "impossible_draws" in names(check(excluding, cache))


def test_windows_are_compared_with_what_was_captured(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", store_tokens=False, progress=False)
    with pytest.raises(sl.InvalidArgumentError, match="stores no tokens: give the windows"):
        check(model, cache)
    report = check(model, cache, windows=WINDOWS)
    assert report.ok
    assert report.redraw_match == 1
    changed = WINDOWS.copy()
    changed[4, 3] = (changed[4, 3] + 1) % VOCABULARY
    wrong = check(model, cache, windows=changed)
    assert names(wrong) == ["tokens"]
    assert "1 windows have other tokens" in wrong.problems[0].message
    assert names(check(model, cache, windows=WINDOWS[:15])) == ["windows"]
    assert names(check(model, cache, windows=np.concatenate([WINDOWS, WINDOWS]))) == ["windows"]


def test_sequence_ids_are_those_of_the_capture(model: nn.Module, tmp_path: Path) -> None:
    ids = list(range(100, 120))
    cache = sl.capture(model, WINDOWS, tmp_path / "c", sequence_ids=ids, progress=False)
    assert check(model, cache).redraw_match == 1
    assert check(model, cache, windows=WINDOWS, sequence_ids=ids).redraw_match == 1
    assert names(check(model, cache, windows=WINDOWS)) == ["windows", "windows"]


def test_windows_of_documents_must_be_given(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    packed = rewritten(cache, tmp_path / "d", {"document_mask": "block-diagonal"})
    with pytest.raises(sl.InvalidArgumentError, match=r"several documents .* give the windows"):
        check(model, packed)


def test_windows_that_keep_documents_apart_otherwise_are_caught(
    model: nn.Module, tmp_path: Path
) -> None:
    documents = [np.arange(1, 30), np.arange(5, 60), np.arange(2, 40)]

    def packed(packing: str) -> sl.tokens.WindowSet:
        return sl.tokens.pack(sl.tokens.open_tokens(documents), 24, packing)

    apart = sl.capture(model, packed("concat-documents"), tmp_path / "c", progress=False)
    assert check(model, apart, windows=packed("concat-documents")).ok
    assert "windows" in names(check(model, apart, windows=packed("concat")))


def test_masked_positions_are_left_out_and_others_must_not_be_empty(
    model: nn.Module, tmp_path: Path
) -> None:
    mask = np.random.default_rng(1).random(WINDOWS.shape) < 0.5
    cache = sl.capture(model, WINDOWS, tmp_path / "c", targets_mask=mask, progress=False)
    report = check(model, cache, fraction=1.0)
    assert report.ok
    assert report.draws is not None
    assert report.draws.positions == mask.sum()
    wrong = rewritten(cache, tmp_path / "d", {"targets_mask": "none"})
    assert names(check(model, wrong, windows=WINDOWS)) == ["empty_positions"]
    unsure = check(model, wrong)
    assert unsure.ok
    assert "positions have no draws, and no mask is recorded" in unsure.notes[0]
    masked = GivenWindows(WINDOWS, targets_mask=mask)
    again = sl.capture(model, masked, tmp_path / "e", progress=False)
    assert again.metadata == cache.metadata
    assert contents(again) == contents(cache)
    assert check(model, again, windows=masked).ok


def test_the_tokenizer_is_compared(model: nn.Module, tmp_path: Path) -> None:
    tokenizer = Tokenizer(VOCABULARY)
    cache = sl.capture(model, WINDOWS, tmp_path / "c", tokenizer=tokenizer, progress=False)
    assert check(model, cache, tokenizer=tokenizer).ok
    other = Tokenizer(VOCABULARY)
    other.get_vocab()["t0"], other.get_vocab()["t1"] = 1, 0
    assert names(check(model, cache, tokenizer=other)) == ["tokenizer"]


def test_a_cache_without_facts_is_checked_as_far_as_it_goes(
    model: nn.Module, tmp_path: Path
) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    with sl.CacheWriter(tmp_path / "d", cache.config) as writer:
        for seq in cache:
            writer.append(seq.input_ids, seq.offsets, seq.token_ids, seq.counts,
                          sequence_id=seq.sequence_id)  # fmt: skip
    report = check(model, sl.open(tmp_path / "d"))
    assert report.ok
    assert report.redraw_match is None
    assert len(report.notes) == 2


def test_which_sequences_are_looked_at(model: nn.Module, tmp_path: Path) -> None:
    cache = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    assert check(model, cache, fraction=0.001).sequences == 1
    assert check(model, cache, fraction=1.0).sequences == 20
    for wrong in (0, -0.1, 1.01, True):
        with pytest.raises(sl.InvalidArgumentError, match="fraction must be above 0"):
            check(model, cache, fraction=wrong)
    empty = sl.capture(model, [], tmp_path / "e", progress=False)
    with pytest.raises(sl.InvalidArgumentError, match="nothing to check"):
        check(model, empty)
