"""The torch path: its draws are the reference's, and nothing waits for the device but the sizes."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import reference_sampler as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import sparselogits as sl
from sparselogits.sampling import SAMPLERS, SampleOptions, check_keys, check_options
from sparselogits.sampling_torch import rows as sampling_rows
from sparselogits.sampling_torch import tiles
from sparselogits.sampling_torch.compaction import DrawnRows, compact
from sparselogits.sampling_torch.rows import sample_with_torch

LOWEST = float(np.finfo(np.float32).min)


def make_options(**changes: Any) -> SampleOptions:
    parameters = inspect.signature(sl.sample).parameters.values()
    defaults = {each.name: each.default for each in parameters}
    del defaults["logits"], defaults["position_keys"]
    return check_options(**(defaults | changes))


def torch_path(logits: torch.Tensor, keys: Any = None, **changes: Any) -> sl.Draws[torch.Tensor]:
    return sample_with_torch(logits, check_keys(keys, len(logits)), make_options(**changes))


def make_logits(rows: int, vocab_size: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((rows, vocab_size), generator=generator)


def assert_reference(logits: torch.Tensor, keys: Any = None, **changes: Any) -> None:
    ours = torch_path(logits, keys, **changes)
    expected = reference.draw_rows(logits.float().numpy(), keys, **changes)
    for name, mine, theirs in zip(("offsets", "token_ids", "counts"), ours, expected, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs, err_msg=name)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1)),
    rounds=st.integers(1, 60),
    vocab_size=st.integers(1, 1100),
    scale=st.sampled_from([0.0, 0.1, 3.0, 30.0, 1e30]),
    sampler=st.sampled_from(SAMPLERS),
    temperature=st.sampled_from([1.0, 0.7, 3.0, 1e-3]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_draws_are_the_reference_s(
    seed: int,
    key: tuple[int, int],
    rounds: int,
    vocab_size: int,
    scale: float,
    sampler: str,
    temperature: float,
    dtype: torch.dtype,
) -> None:
    if dtype == torch.float16:
        scale = min(scale, 1e4)
    logits = make_logits(2, vocab_size, seed % 1000, scale)
    keys = np.array([key, (key[0], key[1] // 2)], np.uint64)
    changes = {"rounds": rounds, "sampler": sampler, "temperature": temperature, "seed": seed}
    assert_reference(logits.to(dtype), keys, **changes)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_masses_are_the_reference_s(temperature: float) -> None:
    """Also those too small to be drawn."""
    logits = make_logits(4, 1500)
    logits[1, 256:512] -= torch.linspace(0, 45, 256)
    logits[2, 300:] -= torch.linspace(20, 60, 1200)
    logits[3] = torch.linspace(-44, 0, 1500)
    grid = tiles.TileGrid(1500, 0, 1500)
    tile_max, tile_sum = tiles.statistics(logits, grid, temperature)
    masses = tiles.weigh(tile_max, tile_sum, tile_max.amax(1, keepdim=True), grid.base_shift)
    for row in range(len(logits)):
        expected = reference.tiles_of(logits[row].numpy(), temperature)
        assert tile_sum[row].tolist() == [sum(tile.masses) for tile in expected]
        assert masses.mantissa[row].tolist() == [tile.mantissa for tile in expected]
        assert masses.shift[row].tolist() == [min(tile.shift, 62) for tile in expected]
        assert masses.mass[row].tolist() == [tile.mass for tile in expected]


@pytest.mark.parametrize("rounds", [3, 5], ids=["fewer than tiles", "more than tiles"])
def test_tokens_begin_and_end_where_their_masses_do(rounds: int) -> None:
    """In columns that begin and end inside tiles."""
    grid = tiles.TileGrid(3000, 700, 1000)
    logits = make_logits(grid.num_columns, grid.num_columns)
    tile_max, _ = tiles.statistics(logits, grid, 1.0)
    column = torch.arange(grid.num_columns)  # row i looks for column i
    tile = (column + grid.lead) // 256
    first = (tile * 256 - grid.lead).clamp(min=0)
    masses = tiles.token_masses(logits, tile_max[column, tile]).long()
    masses[column < first[:, None]] = 0
    end = masses.cumsum(1)[column, column]
    start = end - masses[column, column]
    there = masses[column, column] > 0
    for offset in (start, end - 1):
        places = (each[:, None].expand(-1, rounds) for each in (tile, offset))
        found = tiles.tokens(logits, grid, 1.0, tile_max, *places)
        assert torch.equal(found[there], column[there, None].expand(-1, rounds))


@pytest.mark.parametrize("vocab_size", [1, 2, 255, 256, 257, 512, 65537])
@pytest.mark.parametrize("rounds", [1, 300])
def test_any_width(vocab_size: int, rounds: int) -> None:
    for sampler in SAMPLERS:
        assert_reference(make_logits(2, vocab_size), rounds=rounds, sampler=sampler)


@pytest.mark.parametrize("offset", [0.0, 0.5, 0.1, 1 - 2**-53])
@pytest.mark.parametrize("rounds", [3, 24])
def test_offset(offset: float, rounds: int) -> None:
    assert_reference(make_logits(6, 900), rounds=rounds, sampler="systematic", offset=offset)


@pytest.mark.parametrize("rounds", [2, 40], ids=["fewer than tiles", "more than tiles"])
@pytest.mark.parametrize(
    "masked",
    [
        slice(1, None),
        slice(0, -1),
        slice(0, 256),
        slice(256, 1024),
        slice(300, 301),
        slice(0, None, 2),
    ],
    ids=str,
)
def test_masked_tokens(masked: slice, rounds: int) -> None:
    """-inf, and float32's lowest number, which divides into -inf."""
    for value in (-torch.inf, LOWEST, -1e30):
        logits = make_logits(3, 1100)
        logits[1:, masked] = value
        for temperature in (1.0, 0.5):
            assert_reference(logits, rounds=rounds, temperature=temperature)


def test_a_row_of_equal_huge_logits() -> None:
    for value in (LOWEST, -LOWEST, -1e30, 1e30):
        assert_reference(torch.full((1, 700), value), rounds=200)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :300],
        lambda x: x[::2],
        lambda x: x[:, ::3],
        lambda x: x.t().contiguous().t(),
        lambda x: x[:1].expand(4, -1),
        lambda x: x.double(),
    ],
    ids=["columns cut", "every 2nd row", "every 3rd column", "by columns", "one row", "float64"],
)
@pytest.mark.parametrize("rounds", [1, 50], ids=["fewer than tiles", "more than tiles"])
def test_memory_layout_changes_nothing(view: Any, rounds: int) -> None:
    logits = view(make_logits(8, 700))
    before = logits.clone()
    assert_reference(logits, rounds=rounds)
    assert torch.equal(logits, before)


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = make_logits(13, 500)
    for changes in ({}, {"proposal_temperature": 0.8}, {"sampler": "systematic"}):
        whole = torch_path(logits, **changes)
        with monkeypatch.context() as patch:
            patch.setattr(sampling_rows, "_LOGITS_PER_CHUNK", 2000)
            parts = torch_path(logits, **changes)
        for a, b in zip(whole, parts, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": "systematic", "offset": 0.5, "temperature": 0.7},
        {"sampler": "stratified", "rounds": 2},
        {"proposal_temperature": 0.8},
        {"proposal_temperature": 0.8, "self_normalize": True},
    ],
)
def test_no_value_is_looked_at_before_the_sizes(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without values go through everything up to `compact`; it reads once."""
    options = make_options(**changes)
    with FakeTensorMode():
        logits = torch.empty((6, 1000), dtype=torch.bfloat16)
        words = torch.empty((6, 4), dtype=torch.int64)
        if options.weighted:
            drawn = sampling_rows._draw_with_proposal(logits, words, options)
        else:
            drawn = sampling_rows._draw_plain(logits, words, options, tiles)
    assert drawn.tokens.shape == (6, options.rounds)

    reads = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(1) or tolist(self))
    for name in ("item", "nonzero", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, None)
    ratios = torch.ones((2, options.rounds), dtype=torch.float64) if options.weighted else None
    rows = DrawnRows(
        torch.zeros((2, options.rounds), dtype=torch.int32), torch.ones(2, dtype=torch.bool), ratios
    )
    compact([rows] * 3, options, torch.device("cpu"))
    assert len(reads) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("changes", [{}, {"proposal_temperature": 0.8}])
@pytest.mark.parametrize("pure", [False, True], ids=["triton", "torch"])
def test_a_gpu_is_waited_for_once(changes: dict[str, Any], pure: bool) -> None:
    logits = make_logits(64, 5000).cuda()
    backend = tiles if pure else None
    keys, options = check_keys(None, len(logits)), make_options(**changes)
    sample_with_torch(logits, keys, options, backend)  # compiles
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchronizing") as waits:
            draws = sample_with_torch(logits, keys, options, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1
    expected = sl.sample(logits.cpu(), **changes)
    assert torch.equal(draws.token_ids.cpu(), expected.token_ids)


@pytest.mark.parametrize("chunk", [1, 1 << 22], ids=["row by row", "all rows"])
def test_the_first_row_at_fault_is_named(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_rows, "_LOGITS_PER_CHUNK", chunk)
    logits = make_logits(5, 600)
    logits[4, 0] = torch.nan
    logits[3, 599] = torch.inf
    logits[3, 300] = torch.nan
    for changes in ({}, {"proposal_temperature": 2.0}):
        with pytest.raises(sl.InvalidArgumentError, match=r"logits\[3, 300\] is nan: logits must"):
            torch_path(logits, **changes)
    logits[2] = -torch.inf
    with pytest.raises(sl.InvalidArgumentError, match="logits row 2 is all -inf: there is no"):
        torch_path(logits)
    logits[0, 400] = LOWEST
    logits[1, 400] = 3e38
    with pytest.raises(
        sl.InvalidArgumentError,
        match=r"logits\[1, 400\] = 3.00000001e\+38 leaves float32 at temperature 0.5",
    ):
        torch_path(logits, temperature=0.5)
