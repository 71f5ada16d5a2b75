"""Windows of several documents: the teacher sees each document as if it were alone.

A model is told by position ids that restart, by a mask, or by both, and which of them it heeds
depends on its family, its attention implementation and the version of transformers. So the ways
are tried on a probe, and one that gives the logits of the documents alone is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparselogits.capture.model_facts import attention_implementation, sliding_window
from sparselogits.capture.replay import SplitModel
from sparselogits.capture.windows import Window
from sparselogits.errors import InvalidArgumentError

_PROBE_LENGTH = 8


@dataclass(frozen=True)
class PackedBatch:
    """Windows of a batch, padded on the right.

    Attributes:
        ids: (B, S) int64.
        document: (B, S) int64: of which document of its window each token is; padding is one more.
        position_ids: (B, S) int64: from 0 in each document, and in the padding.
        real: (B, S) bool: False at padding.
    """

    ids: torch.Tensor
    document: torch.Tensor
    position_ids: torch.Tensor
    real: torch.Tensor

    @classmethod
    def of(cls, ids: torch.Tensor, windows: Sequence[Window]) -> PackedBatch:
        """The documents of windows whose tokens are the rows of `ids`."""
        shape = tuple(ids.shape)
        document, position = np.empty(shape, np.int64), np.empty(shape, np.int64)
        lengths = np.array([len(window.tokens) for window in windows])
        places = np.arange(shape[1])
        for row, window in enumerate(windows):
            given = window.document_starts
            starts = np.append(np.zeros(1) if given is None else given, lengths[row])
            starts = starts.astype(np.int64)
            document[row] = np.searchsorted(starts, places, side="right") - 1
            position[row] = places - starts[document[row]]
        real = places < lengths[:, None]
        return cls(ids, *(torch.from_numpy(array) for array in (document, position, real)))


def several_documents(window: Window) -> bool:
    """Whether a window holds more than one document."""
    return window.document_starts is not None and len(window.document_starts) > 1


class DocumentRuns:
    """Runs a model's body over windows of documents that must not see each other.

    Args:
        model: The model, cut in two.
        probe: (2, S) int64 token ids to try it on; S from 2, more than 8 are not looked at.
    """

    def __init__(self, model: SplitModel, probe: torch.Tensor) -> None:
        self._model = model
        self._probe = probe[:, :_PROBE_LENGTH]
        self._way: Callable[[SplitModel, PackedBatch], torch.Tensor] | None = None

    def hidden(self, ids: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
        """What feeds the head, (B, S, H), for windows that are the rows of `ids` (B, S).

        Raises:
            InvalidArgumentError: No way of running this model keeps documents apart.
        """
        if self._way is None:
            self._way = self._find_way()
        return self._way(self._model, PackedBatch.of(ids, windows))

    def _find_way(self) -> Callable[[SplitModel, PackedBatch], torch.Tensor]:
        model = self._model.model
        ways: dict[str, Callable[[SplitModel, PackedBatch], torch.Tensor]]
        if attention_implementation(model).startswith("flash"):
            # It reads documents from position ids, and only where the batch is one row.
            ways = {"position ids in one row": _by_flat_row}
        else:
            ways = {"position ids": _by_position_ids}
            if sliding_window(model) is None:
                # A mask of ours stands for every layer: it would lift the window of sliding ones.
                ways["a block-diagonal mask"] = _by_mask
        failures = []
        for name, way in ways.items():
            try:
                failure = self._disagreement(way)
            except Exception as error:  # whatever a foreign forward raises rules the way out
                failure = f"{type(error).__name__}: {error}"
            if failure is None:
                return way
            failures.append(f"{name}: {failure}")
        raise InvalidArgumentError(
            f"{type(model).__name__} does not keep the documents of a window apart: packed "
            f"documents do not get the logits that they get alone ({'; '.join(failures)}). Give "
            "it windows of one document each, or load it with another attn_implementation "
            '("sdpa", "eager")'
        )

    def _disagreement(self, way: Callable[[SplitModel, PackedBatch], torch.Tensor]) -> str | None:
        """None where packed documents get the logits of the documents alone."""
        windows = _probe_windows(self._probe.numpy())
        ids = torch.zeros((2, max(len(w.tokens) for w in windows)), dtype=torch.int64)
        for row, window in enumerate(windows):
            ids[row, : len(window.tokens)] = torch.from_numpy(window.tokens)
        batch = PackedBatch.of(ids, windows)
        packed = self._logits(way(self._model, batch)[batch.real], ids[batch.real])
        alone = []
        for window in windows:
            assert window.document_starts is not None
            for tokens in np.split(window.tokens, window.document_starts[1:]):
                document = torch.from_numpy(tokens)
                alone.append(self._logits(self._model.hidden(document[None])[0], document))
        expected = torch.cat(alone)
        finite = torch.isfinite(expected)
        error = float((packed - expected)[finite].abs().amax())
        precision = max(1e-4, 4 * torch.finfo(self._model.body_dtype).eps)
        limit = precision * max(1.0, float(expected[finite].abs().amax()))
        return None if error <= limit else f"logits differ by {error:.3g}, limit {limit:.3g}"

    def _logits(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self._model.logits(hidden, ids)


def _by_position_ids(model: SplitModel, batch: PackedBatch) -> torch.Tensor:
    """transformers derives documents, and sliding windows in them, where no mask is given."""
    return model.hidden(batch.ids, position_ids=batch.position_ids)


def _by_flat_row(model: SplitModel, batch: PackedBatch) -> torch.Tensor:
    """The whole batch in one row without padding, as variable-length kernels want it."""
    flat = model.hidden(
        batch.ids[batch.real][None], position_ids=batch.position_ids[batch.real][None]
    )[0]
    hidden = flat.new_zeros((*batch.ids.shape, flat.shape[1]))
    hidden[batch.real.to(flat.device)] = flat
    return hidden


def _by_mask(model: SplitModel, batch: PackedBatch) -> torch.Tensor:
    """An additive mask, which eager attention and sdpa both take."""
    same = batch.document[:, :, None] == batch.document[:, None, :]
    seen = (same & torch.ones(same.shape[1:], dtype=torch.bool).tril())[:, None]
    lowest = torch.finfo(model.body_dtype).min
    mask = torch.zeros(seen.shape, dtype=model.body_dtype).masked_fill(~seen, lowest)
    return model.hidden(batch.ids, mask, position_ids=batch.position_ids)


def _probe_windows(ids: npt.NDArray[np.int64]) -> list[Window]:
    """Two windows of unequal lengths with documents of one and of several tokens."""
    total = ids.shape[1]
    windows: list[Window] = []
    starts: Any
    for tokens, starts in (
        (ids[0], sorted({0, total // 2, min(total // 2 + 1, total - 1)})),
        (ids[1, : total - 1], range(min(2, total - 1))),
    ):
        everywhere = np.ones(len(tokens), np.bool_)
        windows.append(Window(0, 0, tokens, everywhere, np.array(starts, np.int64)))
    return windows
