"""`sample`: determinism, agreement of the C++ and torch paths, golden draws, refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference_sampler as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparselogits as sl
from sparselogits.sampling import SAMPLERS, Draws, SampleOptions, check_keys, check_options
from sparselogits.sampling_torch.points import philox4x32
from sparselogits.sampling_torch.rows import sample_with_torch


def make_logits(rows: int, vocabulary: int, seed: int = 0, scale: float = 2.5) -> Any:
    generator = np.random.default_rng(seed)
    return (scale * generator.standard_normal((rows, vocabulary))).astype(np.float32)


def make_options(**changes: Any) -> SampleOptions:
    defaults = {
        "rounds": 50,
        "sampler": "multinomial",
        "temperature": 1.0,
        "proposal_temperature": 1.0,
        "seed": 0,
        "offset": 0.0,
        "self_normalize": False,
        "num_threads": None,
    }
    return check_options(**(defaults | changes))


def torch_path(logits: Any, keys: Any = None, **changes: Any) -> Draws[torch.Tensor]:
    """The pure torch path, which CPU tensors do not take by themselves."""
    tensor = torch.as_tensor(logits)
    return sample_with_torch(tensor, check_keys(keys, len(tensor)), make_options(**changes))


def dense_counts(draws: Draws[Any], shape: tuple[int, ...]) -> Any:
    counts = np.zeros(shape)
    counts[np.repeat(np.arange(shape[0]), np.diff(draws.offsets)), draws.token_ids] = draws.counts
    return counts


def softmax(logits: Any) -> Any:
    return torch.softmax(torch.from_numpy(logits).double(), -1).numpy()


def assert_same(a: Draws[Any], b: Draws[Any], weight_ulps: int = 0) -> None:
    np.testing.assert_array_equal(np.asarray(a.offsets), np.asarray(b.offsets))
    np.testing.assert_array_equal(np.asarray(a.token_ids), np.asarray(b.token_ids))
    assert (a.counts is None) == (b.counts is None)
    if a.counts is not None:
        np.testing.assert_array_equal(np.asarray(a.counts), np.asarray(b.counts))
    np.testing.assert_array_max_ulp(np.asarray(a.weights), np.asarray(b.weights), weight_ulps)


def rows_of(draws: Draws[Any]) -> Iterator[tuple[Any, Any]]:
    for start, stop in zip(draws.offsets[:-1], draws.offsets[1:], strict=True):
        yield draws.token_ids[start:stop], draws.weights[start:stop]


class TestShape:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_numpy_in_numpy_out(self, sampler: str) -> None:
        draws = sl.sample(make_logits(5, 300), rounds=20, sampler=sampler)
        assert draws.offsets.dtype == np.int64
        assert draws.offsets.shape == (6,)
        assert draws.token_ids.dtype == np.int32
        assert draws.counts is not None
        assert draws.counts.dtype == np.uint16
        assert draws.weights.dtype == np.float32
        assert draws.rounds == 20
        assert draws.counts.min() >= 1
        np.testing.assert_array_equal(np.add.reduceat(draws.counts, draws.offsets[:-1]), 20)
        np.testing.assert_array_equal(draws.weights, draws.counts / np.float32(20))
        for ids, _ in rows_of(draws):
            assert (np.diff(ids) > 0).all()

    def test_torch_in_torch_out(self) -> None:
        draws = sl.sample(torch.from_numpy(make_logits(5, 300)).requires_grad_(), rounds=20)
        assert draws.counts is not None
        assert [a.dtype for a in (draws.offsets, draws.token_ids, draws.counts, draws.weights)] == [
            torch.int64,
            torch.int32,
            torch.int32,
            torch.float32,
        ]
        assert not draws.weights.requires_grad

    def test_unpacks_into_counts_or_weights(self) -> None:
        logits = make_logits(3, 50)
        plain = sl.sample(logits)
        _, _, counts = plain
        assert counts is plain.counts
        proposed = sl.sample(logits, proposal_temperature=0.8)
        _, _, weights = proposed
        assert proposed.counts is None
        assert weights is proposed.weights

    @pytest.mark.parametrize("proposal_temperature", [1.0, 0.8])
    def test_no_rows(self, proposal_temperature: float) -> None:
        logits = np.zeros((0, 7), np.float32)
        expected = sl.sample(logits, proposal_temperature=proposal_temperature)
        assert expected.offsets.tolist() == [0]
        assert expected.token_ids.shape == (0,)
        assert_same(expected, torch_path(logits, proposal_temperature=proposal_temperature))

    def test_one_token(self) -> None:
        draws = sl.sample(np.full((2, 1), -3.0, np.float32), rounds=65535)
        assert draws.counts is not None
        assert draws.token_ids.tolist() == [0, 0]
        assert draws.counts.tolist() == [65535, 65535]

    def test_does_not_import_torch(self) -> None:
        code = (
            "import sys, numpy, sparselogits\n"
            "sparselogits.sample(numpy.zeros((2, 3), numpy.float32))\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestSameDrawsEverywhere:
    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
    @pytest.mark.parametrize("vocabulary", [2, 255, 257, 5000])
    def test_torch_path_agrees_bit_for_bit(
        self, sampler: str, temperature: float, vocabulary: int
    ) -> None:
        logits = make_logits(40, vocabulary)
        logits[1::2, ::3] = -np.inf
        changes = {"sampler": sampler, "temperature": temperature, "rounds": 51, "seed": 2**64 - 1}
        assert_same(sl.sample(logits, **changes), torch_path(logits, **changes))

    @pytest.mark.parametrize("self_normalize", [False, True])
    @pytest.mark.parametrize("proposal_temperature", [0.1, 0.8, 1.2, 5.0])
    def test_torch_path_agrees_with_proposals(
        self, proposal_temperature: float, self_normalize: bool
    ) -> None:
        logits = make_logits(40, 5000)
        changes = {
            "proposal_temperature": proposal_temperature,
            "self_normalize": self_normalize,
            "temperature": 0.9,
        }
        assert_same(sl.sample(logits, **changes), torch_path(logits, **changes), weight_ulps=2)

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**64 - 1),
        key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1)),
        rounds=st.integers(1, 300),
        vocabulary=st.integers(1, 600),
        scale=st.sampled_from([0.0, 0.1, 3.0, 30.0, 1e30]),
        sampler=st.sampled_from(SAMPLERS),
    )
    def test_torch_path_agrees_for_any_key(
        self,
        seed: int,
        key: tuple[int, int],
        rounds: int,
        vocabulary: int,
        scale: float,
        sampler: str,
    ) -> None:
        logits = make_logits(1, vocabulary, seed % 1000, scale)
        keys = np.array([key], np.uint64)
        changes = {"rounds": rounds, "sampler": sampler, "seed": seed}
        assert_same(
            sl.sample(logits, position_keys=keys, **changes), torch_path(logits, keys, **changes)
        )

    def test_most_rounds(self) -> None:
        logits = make_logits(1, 100)
        for sampler in SAMPLERS:
            draws = sl.sample(logits, rounds=65535, sampler=sampler)
            assert draws.counts is not None
            assert int(draws.counts.sum(dtype=np.int64)) == 65535
            assert_same(draws, torch_path(logits, rounds=65535, sampler=sampler))

    @pytest.mark.parametrize("sampler", SAMPLERS)
    def test_batch_order_and_threads(self, sampler: str) -> None:
        logits = make_logits(30, 700)
        keys = np.stack([np.arange(30) % 4, np.arange(30) * 10**12 + 5], axis=1)
        whole = sl.sample(logits, sampler=sampler, position_keys=keys, num_threads=1)
        for num_threads in (2, 7, 100, None):
            again = sl.sample(logits, sampler=sampler, position_keys=keys, num_threads=num_threads)
            assert_same(whole, again)
        order = np.random.default_rng(1).permutation(30)
        shuffled = sl.sample(logits[order], sampler=sampler, position_keys=keys[order])
        rows = list(rows_of(whole))
        for index, (ids, weights) in zip(order, rows_of(shuffled), strict=True):
            np.testing.assert_array_equal(ids, rows[index][0])
            np.testing.assert_array_equal(weights, rows[index][1])
        for index in range(30):
            one = sl.sample(
                logits[index : index + 1], sampler=sampler, position_keys=keys[index : index + 1]
            )
            np.testing.assert_array_equal(one.token_ids, rows[index][0])

    def test_torch_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        logits = make_logits(13, 500)
        monkeypatch.setattr("sparselogits.sampling_torch.rows._LOGITS_PER_CHUNK", 2000)
        assert_same(sl.sample(logits), torch_path(logits))

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x[:, :90],
            lambda x: x[::2],
            lambda x: x[::-1],
            lambda x: x[:, ::3],
            lambda x: np.asfortranarray(x),
            lambda x: np.broadcast_to(x[:1], (6, 100)),
            lambda x: x.astype(">f4"),
            lambda x: x.astype(np.float64),
        ],
    )
    def test_memory_layout_changes_nothing(self, view: Any) -> None:
        logits = view(make_logits(8, 100))
        expected = sl.sample(np.array(logits, np.float32, order="C"))
        assert_same(expected, sl.sample(logits))
        if logits.dtype.isnative and min(logits.strides) > 0:
            assert_same(expected, sl.sample(torch.from_numpy(logits)))
            assert_same(expected, torch_path(logits))

    def test_default_keys_are_the_row_numbers_of_sequence_0(self) -> None:
        logits = make_logits(6, 100)
        expected = sl.sample(logits)
        positions = np.arange(6)
        assert_same(expected, sl.sample(logits, position_keys=positions))
        pairs = np.stack([np.zeros(6, int), positions], axis=1)
        assert_same(expected, sl.sample(logits, position_keys=pairs))
        assert_same(expected, sl.sample(logits, position_keys=torch.from_numpy(pairs)))
        assert_same(expected, sl.sample(logits, position_keys=pairs.tolist()))

    def test_every_part_of_the_key_matters(self) -> None:
        logits = np.zeros((1, 1 << 16), np.float32)
        settings_ = [
            (seed, sequence_id, position)
            for seed in (0, 1, 1 << 32, 1 << 63)
            for sequence_id in (0, 1, 1 << 32, 1 << 63)
            for position in (0, 1, 1 << 32, 1 << 47)
        ]
        drawn = {
            sl.sample(
                logits,
                rounds=4,
                seed=seed,
                position_keys=np.array([[sequence_id, position]], np.uint64),
            ).token_ids.tobytes()
            for seed, sequence_id, position in settings_
        }
        assert len(drawn) == len(settings_)

    def test_philox_known_answer(self) -> None:
        counter = [torch.tensor([w]) for w in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)]
        words = philox4x32(counter, (0xA4093822, 0x299F31D0))
        assert [int(w) for w in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


class TestReference:
    """The C++ path against tests/python/reference_sampler.py, written from decision 9 alone."""

    @settings(max_examples=150, deadline=None)
    @given(
        seed=st.integers(0, 2**64 - 1),
        key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**48 - 1)),
        rounds=st.integers(1, 300),
        vocabulary=st.integers(1, 1500),
        scale=st.sampled_from([0.0, 0.1, 3.0, 30.0, 1e30]),
        sampler=st.sampled_from(SAMPLERS),
        temperature=st.sampled_from([1.0, 0.7, 3.0]),
        masked=st.booleans(),
    )
    def test_draws_are_the_reference_s(
        self,
        seed: int,
        key: tuple[int, int],
        rounds: int,
        vocabulary: int,
        scale: float,
        sampler: str,
        temperature: float,
        masked: bool,
    ) -> None:
        logits = make_logits(1, vocabulary, seed % 1000, scale)
        if masked:  # tiles of nothing but -inf or the lowest float among them
            logits[0, 1::3] = -np.inf
            logits[0, 256:600] = -np.inf
            logits[0, 600:900] = np.finfo(np.float32).min
        changes = {"rounds": rounds, "sampler": sampler, "temperature": temperature, "seed": seed}
        draws = sl.sample(logits, position_keys=np.array([key], np.uint64), **changes)
        expected = reference.draw_row(logits[0], key=key, **changes)
        assert draws.counts is not None
        assert dict(zip(draws.token_ids.tolist(), draws.counts.tolist(), strict=True)) == expected

    @pytest.mark.parametrize("offset", [0.0, 0.5, 0.1, 1 - 2**-53])
    def test_offset(self, offset: float) -> None:
        logits = make_logits(6, 900)
        draws = sl.sample(logits, rounds=24, sampler="systematic", offset=offset)
        expected = reference.draw_rows(logits, rounds=24, sampler="systematic", offset=offset)
        for ours, theirs in zip(draws, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


class TestOffset:
    """Systematic draws that add up: docs/sampling.md, "Adding caches"."""

    @pytest.mark.parametrize("parts", [2, 3, 5])
    def test_complementary_offsets_have_the_counts_of_more_rounds(self, parts: int) -> None:
        rounds = 24
        logits = make_logits(200, 700)
        total = np.zeros(logits.shape)
        for part in range(parts):
            draws = sl.sample(logits, rounds=rounds, sampler="systematic", offset=part / parts)
            total += dense_counts(draws, logits.shape)
        expected = parts * rounds * softmax(logits)
        tolerance = 1e-6 * expected + 1e-9
        assert (total >= np.floor(expected - tolerance)).all()
        assert (total <= np.ceil(expected + tolerance)).all()

    def test_two_equal_offsets_do_not(self) -> None:
        logits = make_logits(200, 700)
        draws = sl.sample(logits, rounds=24, sampler="systematic")
        twice = 2 * dense_counts(draws, logits.shape)
        expected = 48 * softmax(logits)
        assert (np.abs(twice - expected) > 1.001).any()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"offset": 1.0}, r"offset must be a number in \[0, 1\), got 1.0"),
            ({"offset": -0.5}, r"offset must be a number in \[0, 1\), got -0.5"),
            ({"offset": float("nan")}, "offset must be a number"),
            ({"offset": True}, "offset must be a number"),
            ({"offset": 0.5, "sampler": "stratified"}, "offset is 0.5: it is for the systematic"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(sl.InvalidArgumentError, match=message):
            sl.sample(make_logits(1, 10), **({"sampler": "systematic"} | changes))


class TestHalfPrecision:
    """float16 and bfloat16 logits are drawn from as the float32 numbers that they are."""

    @pytest.mark.parametrize("proposal_temperature", [1.0, 0.8])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_draws_are_those_of_the_widened_logits(
        self, dtype: torch.dtype, proposal_temperature: float
    ) -> None:
        logits = torch.from_numpy(make_logits(5, 700)).to(dtype)
        logits[1, ::3] = -torch.inf
        changes = {"temperature": 0.9, "proposal_temperature": proposal_temperature}
        expected = sl.sample(logits.float(), **changes)
        assert_same(expected, sl.sample(logits, **changes))
        assert_same(expected, torch_path(logits, **changes), weight_ulps=2)
        assert_same(expected, sl.sample(logits.T.contiguous().T, **changes))
        if dtype == torch.float16:
            assert_same(expected, sl.sample(logits.numpy(), **changes))

    def test_refusal_names_the_place(self) -> None:
        logits = torch.zeros(2, 300, dtype=torch.bfloat16)
        logits[1, 299] = torch.inf
        with pytest.raises(sl.InvalidArgumentError, match=r"logits\[1, 299\] is inf"):
            sl.sample(logits)


class TestGoldenDraws:
    """Draws of one fixed row and key. They must never change: caches depend on them."""

    LOGITS = (((np.arange(200) * 37 % 101) - 50) / 4).astype(np.float32)[None]
    KEY = np.array([[0xFEDCBA9876543210, 0x123456789ABC]], np.uint64)
    GOLDEN = {  # noqa: RUF012
        "multinomial": (
            [19, 30, 49, 60, 90, 109, 161, 180, 191, 199],
            [1, 1, 1, 1, 1, 1, 1, 1, 3, 1],
        ),
        "systematic": (
            [8, 30, 57, 60, 90, 109, 131, 158, 161, 191],
            [1, 2, 1, 1, 1, 1, 2, 1, 1, 1],
        ),
        "stratified": (
            [8, 30, 60, 79, 90, 120, 131, 150, 161, 180, 191],
            [1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        ),
    }

    @pytest.mark.parametrize("sampler", SAMPLERS)
    @pytest.mark.parametrize("path", ["core", "torch"])
    def test_draws(self, sampler: str, path: str) -> None:
        changes = {"rounds": 12, "sampler": sampler, "seed": 0x0123456789ABCDEF}
        if path == "core":
            draws = sl.sample(self.LOGITS, position_keys=self.KEY, **changes)
        else:
            draws = torch_path(self.LOGITS, self.KEY, **changes)
        ids, counts = self.GOLDEN[sampler]
        assert draws.counts is not None
        assert draws.token_ids.tolist() == ids
        assert draws.counts.tolist() == counts


class TestRefusals:
    @pytest.mark.parametrize(
        ("logits", "message"),
        [
            (
                np.zeros((2, 3), np.int64),
                "logits are int64: they must be float32, float64, float16 or bfloat16",
            ),
            (np.zeros(3, np.float32), r"logits have shape \(3,\)"),
            (np.zeros((1, 2, 3), np.float32), r"logits have shape \(1, 2, 3\)"),
            (np.zeros((2, 0), np.float32), "logits have 0 columns"),
            (np.broadcast_to(np.float32(0), (0, 2**24 + 1)), "logits have 16777217 columns"),
            (np.array([[0.0, 1e300]]), r"logits\[0, 1\] is inf"),
        ],
    )
    def test_logits(self, logits: Any, message: str) -> None:
        with pytest.raises(sl.InvalidArgumentError, match=message):
            sl.sample(logits)
        with pytest.raises(sl.InvalidArgumentError, match=message):
            sl.sample(torch.tensor(logits))

    @pytest.mark.parametrize("path", [sl.sample, torch_path])
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (
                [((2, 7), np.nan), ((3, 0), np.inf)],
                r"logits\[2, 7\] is nan: logits must not be NaN",
            ),
            ([((4, 9), np.inf)], r"logits\[4, 9\] is inf: logits must not be NaN or \+inf"),
            ([(1, -np.inf), ((2, 0), np.nan)], "logits row 1 is all -inf"),
            ([((0, 0), -np.inf), ((3, 2), np.inf), ((3, 3), np.nan)], r"logits\[3, 2\] is inf"),
        ],
    )
    def test_values(self, path: Any, bad: list[tuple[Any, float]], message: str) -> None:
        logits = make_logits(5, 10)
        for place, value in bad:
            logits[place] = value
        with pytest.raises(sl.InvalidArgumentError, match=message):
            path(logits)

    @pytest.mark.parametrize("path", [sl.sample, torch_path])
    def test_overflow_by_scaling(self, path: Any) -> None:
        logits = np.array([[0, 1], [0, 3e38]], np.float32)
        with pytest.raises(
            sl.InvalidArgumentError,
            match=r"logits\[1, 1\] = 3.00000001e\+38 leaves float32 at temperature 0.25",
        ):
            path(logits, temperature=0.25)
        with pytest.raises(sl.InvalidArgumentError, match="proposal_temperature 2"):
            path(logits, proposal_temperature=2.0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"rounds": 0}, "rounds must be from 1 to 65535, got 0"),
            ({"rounds": 65536}, "rounds must be from 1 to 65535, got 65536"),
            ({"rounds": 2.0}, "rounds must be an integer, got 2.0"),
            ({"rounds": True}, "rounds must be an integer, got True"),
            (
                {"sampler": "gumbel"},
                "sampler must be one of 'multinomial', 'systematic', 'stratified'",
            ),
            ({"temperature": 0}, "temperature must be finite and above 0, got 0.0"),
            ({"temperature": -1.0}, "temperature must be finite and above 0, got -1.0"),
            ({"temperature": float("nan")}, "temperature must be finite and above 0, got nan"),
            ({"temperature": 1e-60}, "temperature must be a float32 above 0, got 1e-60"),
            ({"temperature": "1"}, "temperature must be a number, got '1'"),
            (
                {"proposal_temperature": float("inf")},
                "proposal_temperature must be finite and above 0",
            ),
            ({"seed": -1}, "seed must be from 0 to 18446744073709551615, got -1"),
            ({"seed": 2**64}, "seed must be from .* got 18446744073709551616"),
            ({"self_normalize": 1}, "self_normalize must be True or False"),
            ({"num_threads": 0}, "num_threads must be from 1 to 1024, got 0"),
            ({"position_keys": [0.0, 1.0]}, "position_keys are float64: they must be integers"),
            ({"position_keys": [0, 1, 2]}, r"position_keys have shape \(3,\): with 2 rows"),
            ({"position_keys": [[0, 1, 2]] * 2}, r"position_keys have shape \(2, 3\)"),
            ({"position_keys": [0, -1]}, "position_keys hold -1"),
            ({"position_keys": [0, 2**48]}, "position_keys hold position 281474976710656"),
        ],
    )
    def test_arguments(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(sl.InvalidArgumentError, match=message):
            sl.sample(np.zeros((2, 3), np.float32), **changes)
