"""The Triton kernels against the C++ path: on a GPU, or in the interpreter where there is none."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits import triton_support
from sparselogits.sampling import SAMPLERS, check_keys, check_options
from sparselogits.sampling_torch import rows as sampling_rows
from sparselogits.sampling_torch import tiles, triton_tiles
from sparselogits.sampling_torch.rows import best_backend, sample_with_torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOWEST = float(np.finfo(np.float32).min)


@pytest.fixture(autouse=True)
def _arithmetic_of_a_gpu() -> Iterator[None]:
    """The interpreter computes with NumPy, which warns of inf - inf."""
    with np.errstate(invalid="ignore", over="ignore"):
        yield


def make_logits(rows: int, vocab_size: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn((rows, vocab_size), generator=generator)


def draws_by(
    backend: Any, logits: torch.Tensor, keys: Any = None, **changes: Any
) -> sl.Draws[torch.Tensor]:
    parameters = inspect.signature(sl.sample).parameters.values()
    defaults = {each.name: each.default for each in parameters}
    del defaults["logits"], defaults["position_keys"]
    options = check_options(**(defaults | changes))
    return sample_with_torch(logits, check_keys(keys, len(logits)), options, backend)


def by_triton(logits: torch.Tensor, keys: Any = None, **changes: Any) -> sl.Draws[torch.Tensor]:
    return draws_by(triton_tiles, logits, keys, **changes)


def assert_same_as_core(logits: torch.Tensor, keys: Any = None, **changes: Any) -> None:
    expected = sl.sample(logits, position_keys=keys, **changes)
    ours = by_triton(logits.to(DEVICE), keys, **changes)
    for name in ("offsets", "token_ids", "counts", "weights"):
        mine, theirs = getattr(ours, name).cpu(), getattr(expected, name)
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy(), err_msg=name)


@pytest.mark.parametrize("vocab_size", [1, 2, 255, 256, 257, 1025, 3000])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_width(vocab_size: int, sampler: str) -> None:
    logits = make_logits(3, vocab_size)
    logits[1, 1::3] = -torch.inf
    assert_same_as_core(logits, sampler=sampler, rounds=7)
    assert_same_as_core(logits, sampler=sampler, rounds=30, temperature=0.7, seed=2**64 - 1)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_statistics_are_those_of_pure_torch(temperature: float) -> None:
    """In columns that begin and end inside tiles; masses too small to be drawn are equal, too."""
    grid = tiles.TileGrid(3000, 700, 1500)
    logits = make_logits(3, grid.num_columns)
    logits[1] -= torch.linspace(0, 45, grid.num_columns)
    logits[2, 300:] = -torch.inf
    ours = triton_tiles.statistics(logits.to(DEVICE), grid, temperature)
    for mine, theirs in zip(ours, tiles.statistics(logits, grid, temperature), strict=True):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_are_those_of_pure_torch(temperature: float) -> None:
    """At the first and last unit of every tile's mass, and around the units of its tokens."""
    grid = tiles.TileGrid(3000, 700, 1000)
    logits = make_logits(1, grid.num_columns)
    tile_max, _ = tiles.statistics(logits, grid, temperature)
    scaled = tiles.scale(logits, temperature)
    column = torch.arange(grid.num_columns)
    tile = (column + grid.lead) // 256
    ends = torch.cat(
        [
            tiles.token_masses(scaled[:, tile == each], tile_max[:, each]).long().cumsum(1)[0]
            for each in range(grid.num_tiles)
        ]
    )
    offset = torch.stack([ends - 1, ends]).T.reshape(1, -1)
    places = (tile.repeat_interleave(2)[None], offset)
    expected = tiles.tokens(logits, grid, temperature, tile_max, *places)
    arguments = [each.to(DEVICE) for each in (tile_max, *places)]
    ours = triton_tiles.tokens(logits.to(DEVICE), grid, temperature, *arguments)
    assert torch.equal(ours.cpu().long(), expected)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**64 - 1),
    key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1)),
    rounds=st.integers(1, 30),
    vocab_size=st.integers(1, 1100),
    scale=st.sampled_from([0.0, 0.1, 3.0, 30.0, 1e30]),
    sampler=st.sampled_from(SAMPLERS),
    temperature=st.sampled_from([1.0, 0.7, 3.0, 1e-3]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_key(
    seed: int,
    key: tuple[int, int],
    rounds: int,
    vocab_size: int,
    scale: float,
    sampler: str,
    temperature: float,
    dtype: torch.dtype,
) -> None:
    logits = make_logits(1, vocab_size, seed % 1000, scale).to(dtype)
    keys = np.array([key], np.uint64)
    changes = {"rounds": rounds, "sampler": sampler, "temperature": temperature, "seed": seed}
    assert_same_as_core(logits, keys, **changes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_dtypes(dtype: torch.dtype, temperature: float) -> None:
    assert_same_as_core(make_logits(4, 900).to(dtype), temperature=temperature)


@pytest.mark.parametrize("offset", [0.5, 0.1, 1 - 2**-53])
def test_offset(offset: float) -> None:
    assert_same_as_core(make_logits(4, 900), sampler="systematic", rounds=24, offset=offset)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_many_rounds_in_few_tiles(sampler: str) -> None:
    assert_same_as_core(make_logits(1, 300), sampler=sampler, rounds=1000)


@pytest.mark.parametrize("value", [-torch.inf, LOWEST, -1e30])
@pytest.mark.parametrize("masked", [slice(1, None), slice(0, 256), slice(256, 1024)], ids=str)
def test_masked_tokens(value: float, masked: slice) -> None:
    logits = make_logits(3, 1100)
    logits[1:, masked] = value
    for temperature in (1.0, 0.5):
        assert_same_as_core(logits, rounds=20, temperature=temperature)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :300],
        lambda x: x[::2],
        lambda x: x[:, ::3],
        lambda x: x.t().contiguous().t(),
        lambda x: x[:1].expand(4, -1),
    ],
    ids=["columns cut", "every 2nd row", "every 3rd column", "by columns", "one row"],
)
def test_memory_layout_changes_nothing(view: Any) -> None:
    logits = view(make_logits(8, 700))
    expected = sl.sample(logits.contiguous(), rounds=20)
    ours = by_triton(view(make_logits(8, 700).to(DEVICE)), rounds=20)
    assert torch.equal(ours.offsets.cpu(), expected.offsets)
    assert torch.equal(ours.token_ids.cpu(), expected.token_ids)


def test_chunks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_rows, "_LOGITS_PER_CHUNK", 100)
    assert_same_as_core(make_logits(7, 500), rounds=20)


def test_no_rows() -> None:
    assert by_triton(make_logits(0, 500).to(DEVICE)).offsets.tolist() == [0]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((3, 599), torch.nan, r"logits\[3, 599\] is nan: logits must not be NaN or \+inf"),
        ((3, 256), torch.inf, r"logits\[3, 256\] is inf: logits must not be NaN or \+inf"),
        (3, -torch.inf, "logits row 3 is all -inf: there is no token to draw"),
        ((3, 5), 3e38, r"logits\[3, 5\] = 3.00000001e\+38 leaves float32 at temperature 0.5"),
    ],
)
def test_the_first_row_at_fault_is_named(place: Any, value: float, message: str) -> None:
    logits = make_logits(5, 600)
    logits[4, 0] = torch.nan
    logits[place] = value
    with pytest.raises(sl.InvalidArgumentError, match=message):
        by_triton(logits.to(DEVICE), temperature=0.5)


class _Recorder:
    """Stands for the kernels and notes how they are launched."""

    def __init__(self) -> None:
        self.launches: dict[str, dict[str, Any]] = {}

    def __getattr__(self, kernel: str) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            self.launches[kernel] = options

        return defaultdict(lambda: launch)


def test_every_launch_forbids_fused_multiply_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = _Recorder()
    monkeypatch.setattr(triton_tiles, "kernels", recorder)
    with suppress(sl.InvalidArgumentError):  # nothing was computed
        by_triton(torch.zeros((1, 5), device=DEVICE))
    assert set(recorder.launches) == {"statistics", "scaled_uniforms", "tokens"}
    for options in recorder.launches.values():
        assert options["enable_fp_fusion"] is False


@pytest.mark.parametrize("capability", [(9, 0), (7, 5)])
def test_a_gpu_that_triton_supports_gets_the_kernels(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    expected = triton_tiles if capability >= (8, 0) else tiles
    assert best_backend(torch.device("cuda", 1)) is expected
    assert best_backend(torch.device("cpu")) is tiles


def test_pure_torch_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "find_spec", lambda name: None)
    assert best_backend(torch.device("cuda", 0)) is tiles


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("vocab_size", [49_152, 131_072, 151_936])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_draws_what_the_cpu_draws(vocab_size: int, dtype: torch.dtype) -> None:
    logits = make_logits(64, vocab_size).to(dtype)
    for sampler in SAMPLERS:
        for rounds in (24, 65535):
            for temperature in (1.0, 0.8):
                options = {"sampler": sampler, "rounds": rounds, "temperature": temperature}
                expected = sl.sample(logits, **options)
                for backend in (triton_tiles, tiles):
                    draws = draws_by(backend, logits.cuda(), **options)
                    assert torch.equal(draws.offsets.cpu(), expected.offsets)
                    assert torch.equal(draws.token_ids.cpu(), expected.token_ids)
                    assert draws.counts is not None
                    assert torch.equal(draws.counts.cpu(), expected.counts)
