"""Interrupted captures go on, and several caches share one pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from capture_models import VOCABULARY, llama
from captured import contents
from torch import nn

import sparselogits as sl
from sparselogits.capture import CacheSink, capture_many
from sparselogits.capture.teacher_rows import TeacherRows
from sparselogits.capture.windows import Window

WINDOWS = np.random.default_rng(2).integers(0, VOCABULARY, (9, 10))


class InterruptError(Exception):
    pass


def breaking(after: int) -> Iterator[np.ndarray]:
    yield from WINDOWS[:after]
    raise InterruptError


@pytest.fixture
def model() -> nn.Module:
    return llama()


def test_resume_gives_the_content_of_an_undisturbed_run(model: nn.Module, tmp_path: Path) -> None:
    expected = contents(sl.capture(model, WINDOWS, tmp_path / "whole", progress=False))
    for after in (1, 5, 8):
        path = tmp_path / str(after)
        with pytest.raises(InterruptError):
            sl.capture(model, breaking(after), path, batch_size=2, progress=False)
        assert contents(sl.capture(model, WINDOWS, path, progress=False)) == expected


def test_resume_runs_the_teacher_on_missing_windows_only(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InterruptError):
        sl.capture(model, breaking(6), tmp_path / "c", batch_size=2, progress=False)
    done = []
    sl.capture(model, WINDOWS, tmp_path / "c", progress=done.append)
    assert (done[-1].sequences, done[-1].positions, done[-1].total_positions) == (3, 30, 30)
    sl.capture(model, WINDOWS, tmp_path / "c", progress=done.append)  # finished: nothing to do
    assert (done[-1].sequences, done[-1].total_positions) == (0, 0)


def test_a_finished_cache_can_be_extended(model: nn.Module, tmp_path: Path) -> None:
    sl.capture(model, WINDOWS[:4], tmp_path / "c", progress=False)
    longer = sl.capture(model, WINDOWS, tmp_path / "c", progress=False)
    whole = sl.capture(model, WINDOWS, tmp_path / "whole", progress=False)
    assert contents(longer) == contents(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": 1}, "seed"), ({"rounds": 20}, "rounds"), ({"sampler": "systematic"}, "sampler")],
)
def test_resume_refuses_another_capture(
    change: dict[str, int], message: str, model: nn.Module, tmp_path: Path
) -> None:
    sl.capture(model, WINDOWS[:4], tmp_path / "c", progress=False)
    with pytest.raises(sl.MismatchError, match=message):
        sl.capture(model, WINDOWS, tmp_path / "c", progress=False, **change)  # type: ignore[arg-type]


def test_resume_refuses_another_teacher(model: nn.Module, tmp_path: Path) -> None:
    sl.capture(model, WINDOWS[:4], tmp_path / "c", progress=False)
    next(model.parameters()).data += 0.01
    with pytest.raises(sl.MismatchError, match="teacher_weights_fingerprint"):
        sl.capture(model, WINDOWS, tmp_path / "c", progress=False)


def test_resume_refuses_other_tokens_under_the_same_id(model: nn.Module, tmp_path: Path) -> None:
    sl.capture(model, WINDOWS[:4], tmp_path / "c", progress=False)
    changed = WINDOWS.copy()
    changed[2, 3] = (changed[2, 3] + 1) % VOCABULARY
    with pytest.raises(sl.FingerprintMismatchError, match=r"window 2: .* holds sequence_id 2"):
        sl.capture(model, changed, tmp_path / "c", progress=False)


def test_without_resume_an_existing_cache_is_refused(model: nn.Module, tmp_path: Path) -> None:
    sl.capture(model, WINDOWS[:4], tmp_path / "c", progress=False)
    with pytest.raises(sl.InvalidArgumentError, match="already holds a cache"):
        sl.capture(model, WINDOWS, tmp_path / "c", progress=False, resume=False)


def test_finished_windows_are_committed_on_time(model: nn.Module, tmp_path: Path) -> None:
    config = sl.CacheConfig(vocab_size=VOCABULARY)
    flushes = []
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        sink = CacheSink(writer, seed=0)
        flush = sink.flush
        sink.flush = lambda: (flushes.append(writer.num_sequences), flush())  # type: ignore[method-assign, assignment, func-returns-value]
        capture_many(model, WINDOWS, [sink], batch_size=3, flush_seconds=0.0, progress=False)
    assert flushes == [3, 6, 9]


def test_two_caches_from_one_pass(model: nn.Module, tmp_path: Path) -> None:
    """One pass gives what two captures give, also where the two were interrupted differently."""
    configs = {
        name: sl.CacheConfig(vocab_size=VOCABULARY, sampler=name, rounds=rounds)
        for name, rounds in (("systematic", 24), ("multinomial", 50))
    }
    with sl.CacheWriter(tmp_path / "systematic", configs["systematic"]) as writer:
        capture_many(model, WINDOWS[2:5], [CacheSink(writer, 4)], sequence_ids=[2, 3, 4],
                     progress=False)  # fmt: skip
    with (
        sl.CacheWriter(tmp_path / "systematic", configs["systematic"], resume=True) as a,
        sl.CacheWriter(tmp_path / "multinomial", configs["multinomial"]) as b,
    ):
        sinks = [CacheSink(a, seed=4), CacheSink(b, seed=4)]
        assert capture_many(model, WINDOWS, sinks, batch_size=4, progress=False) == 90
    for name, config in configs.items():
        alone = sl.capture(
            model,
            WINDOWS,
            tmp_path / f"{name}-alone",
            sampler=name,
            rounds=config.rounds,
            seed=4,
            progress=False,
        )
        assert contents(sl.open(tmp_path / name)) == contents(alone)


def test_a_sink_of_ones_own(model: nn.Module) -> None:
    """The protocol: rows of a batch in order, then `finish`."""

    class Recorder:
        num_positions = 0

        def __init__(self) -> None:
            self.log: list[object] = []

        def holds(self, window: Window) -> bool:
            return window.sequence_id == 0

        def add(self, rows: TeacherRows) -> None:
            assert rows.logits.shape == (len(rows.positions), VOCABULARY)
            ids, positions = rows.sequence_ids.tolist(), rows.positions.tolist()
            self.log += zip(ids, positions, strict=True)

        def finish(self, windows: list[Window]) -> None:
            self.log.append([window.index for window in windows])

        def flush(self) -> None:
            pass

    sink = Recorder()
    capture_many(model, WINDOWS[:4, :3], [sink], batch_size=2, chunk_rows=4, progress=False)
    first = [(s, t) for s in (1, 2) for t in range(3)]
    last = [(3, t) for t in range(3)]
    assert sink.log == [*first, [1, 2], *last, [3]]
