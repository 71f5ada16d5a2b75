"""Sampling and writing beside the teacher: back-pressure, errors, interruptions, and no change."""

from __future__ import annotations

import _thread
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from capture_models import VOCABULARY, llama
from captured import contents

import sparselogits as sl
from sparselogits.capture import TeacherRows, Window, capture_many
from sparselogits.capture.devices import for_sampling, sampling_thread
from sparselogits.capture.handoff import Handoff

WINDOWS = np.random.default_rng(2).integers(0, VOCABULARY, (9, 10))


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    yield
    assert [t for t in threading.enumerate() if t.name == "sparselogits-capture"] == []


class Sink:
    """Does as it is told with each chunk, and keeps a log."""

    num_positions = 0

    def __init__(self, on_add: Callable[[int], None] = lambda _: None) -> None:
        self._on_add = on_add
        self.added = self.finished = self.flushed = 0
        self.threads: set[str] = set()

    def holds(self, window: Window) -> bool:
        return False

    def add(self, rows: TeacherRows) -> None:
        self.added += 1
        self.threads.add(threading.current_thread().name)
        self._on_add(self.added)

    def finish(self, windows: Sequence[Window]) -> None:
        self.finished += len(windows)

    def flush(self) -> None:
        self.flushed += 1


def run(sink: Sink, **options: Any) -> int:
    options = {"batch_size": 1, "chunk_rows": 5, "progress": False, **options}
    return capture_many(llama(), WINDOWS, [sink], **options)


@pytest.mark.parametrize("sampler", ["multinomial", "systematic"])
def test_the_cache_is_the_same_with_and_without_overlap(sampler: str, tmp_path: Path) -> None:
    made = []
    for overlap in (True, False):
        cache = sl.capture(
            llama(),
            WINDOWS,
            tmp_path / str(overlap),
            sampler=sampler,
            batch_size=2,
            chunk_rows=7,
            overlap=overlap,
            progress=False,
        )
        made.append(contents(cache))
    assert made[0] == made[1]


def test_sinks_run_in_one_thread_of_their_own() -> None:
    sink = Sink()
    assert run(sink) == 90
    assert sink.threads == {"sparselogits-capture"}
    assert (sink.added, sink.finished) == (18, 9)
    sink = Sink()
    assert run(sink, overlap=False) == 90
    assert sink.threads == {threading.current_thread().name}


def test_the_teacher_waits_for_a_slow_sink() -> None:
    """At most two chunks are waiting or sampled, and one is computed meanwhile."""
    model = llama()
    heads: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda *_: heads.append(1))
    capture_many(model, WINDOWS, [Sink()], batch_size=1, chunk_rows=5, progress=False)
    self_check = len(heads) - 18
    heads.clear()
    ahead: list[int] = []

    def slow(added: int) -> None:
        deadline = time.monotonic() + 20
        while len(heads) - self_check < min(added + 2, 18) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # enough for one more
        ahead.append(len(heads) - self_check - added)

    capture_many(model, WINDOWS, [Sink(slow)], batch_size=1, chunk_rows=5, progress=False)
    assert ahead == [2] * 16 + [1, 0]


def test_an_error_of_a_sink_stops_the_teacher_and_keeps_its_traceback() -> None:
    model = llama()
    bodies: list[int] = []
    model.model.register_forward_hook(lambda *_: bodies.append(1))  # type: ignore[union-attr]
    failed_at: list[int] = []

    def fail(added: int) -> None:
        if added == 3:
            failed_at.append(len(bodies))
            raise ZeroDivisionError("of the third chunk")

    sink = Sink(fail)
    with pytest.raises(ZeroDivisionError, match="of the third chunk") as caught:
        capture_many(model, WINDOWS, [sink], batch_size=1, chunk_rows=5, progress=False)
    assert any(f.name == "fail" for f in traceback.extract_tb(caught.value.__traceback__))
    assert (sink.added, sink.flushed) == (3, 1)
    assert len(bodies) - failed_at[0] <= 1


def test_an_error_after_the_last_chunk_surfaces_too() -> None:
    def fail(added: int) -> None:
        if added == 18:
            time.sleep(0.05)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(Sink(fail))


def test_an_error_of_the_teacher_leaves_what_is_finished(tmp_path: Path) -> None:
    def breaking() -> Iterator[np.ndarray]:
        yield from WINDOWS[:4]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sl.capture(llama(), breaking(), tmp_path / "c", batch_size=1, progress=False)
    sl.recover(tmp_path / "c")
    assert len(sl.open(tmp_path / "c")) == 4


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, as in a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_finished_windows_committed(tmp_path: Path) -> None:
    model = llama()
    whole = sl.capture(model, WINDOWS, tmp_path / "whole", batch_size=1, progress=False)

    def interrupted() -> Iterator[np.ndarray]:
        for index, window in enumerate(WINDOWS):
            if index == 5:
                _thread.interrupt_main()
                time.sleep(1)
            yield window

    with pytest.raises(KeyboardInterrupt):
        sl.capture(model, interrupted(), tmp_path / "c", batch_size=1, progress=False)
    sl.recover(tmp_path / "c")
    assert contents(sl.open(tmp_path / "c")) == contents(whole)[:5]
    resumed = sl.capture(model, WINDOWS, tmp_path / "c", batch_size=1, progress=False)
    assert contents(resumed) == contents(whole)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_waiting_for_the_sink_waits_until_it_is_done() -> None:
    """Also when it comes twice: the writer must not be closed under the thread."""
    done = []

    def work() -> None:
        for _ in range(2):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)
        done.append(True)

    with pytest.raises(KeyboardInterrupt), Handoff(1, nullcontext()) as handoff:  # noqa: PT012
        handoff.put(work)
        handoff.put(lambda: done.append(False))
    assert done == [True]


def test_a_failed_handoff_takes_nothing_more() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    ran: list[int] = []
    with pytest.raises(ZeroDivisionError), Handoff(2, nullcontext()) as handoff:  # noqa: PT012
        handoff.put(fail)
        for _ in range(100):
            handoff.put(lambda: ran.append(1))
            time.sleep(0.001)
    assert ran == []


class Rows:
    """Logits on another device, as far as sampling looks at them."""

    def __init__(self, kind: str) -> None:
        self.device = torch.device(kind)
        self.copies = 0

    def cpu(self) -> torch.Tensor:
        self.copies += 1
        return torch.ones(2, 3)


def test_rows_of_a_device_without_float64_are_sampled_in_cpu_memory() -> None:
    on_mps, on_cuda = Rows("mps"), Rows("cuda")
    assert isinstance(for_sampling(on_mps), np.ndarray)  # type: ignore[arg-type]
    assert on_mps.copies == 1
    assert for_sampling(on_cuda) is on_cuda  # type: ignore[arg-type, comparison-overlap]
    assert on_cuda.copies == 0
    rows = torch.ones(2, 3)
    view = for_sampling(rows)
    assert view.ctypes.data == rows.data_ptr()


def test_the_sampling_thread_works_on_the_callers_cuda_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[object] = []

    class Context(nullcontext[None]):
        def __init__(self, stream: object) -> None:
            super().__init__()
            used.append((stream, threading.current_thread().name))

    callers = threading.current_thread().name
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: threading.current_thread().name)
    monkeypatch.setattr(torch.cuda, "stream", Context)
    modes: list[bool] = []
    with Handoff(1, sampling_thread(torch.device("cuda"))) as handoff:
        handoff.put(lambda: modes.append(torch.is_inference_mode_enabled()))
    assert used == [(callers, "sparselogits-capture")]
    assert modes == [True]
