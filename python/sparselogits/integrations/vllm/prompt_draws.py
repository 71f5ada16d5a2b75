"""The worker's side: draws at the prompt positions of one request, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm.draw_request import DrawRequest
from sparselogits.integrations.vllm.packed_draws import WindowDraws, pack, pack_failure
from sparselogits.sampling import sample

if TYPE_CHECKING:
    import torch

Positions = npt.NDArray[np.int64]
#: Hidden states (R, H) → logits (R, V), or None on a rank that gets none.
LogitsFunction = Callable[["torch.Tensor"], "torch.Tensor | None"]


class PromptDraws:
    """Collects the draws of one request.

    Row r of the logits of a prompt is the distribution of token r + 1, as in a cache. What goes
    wrong is kept and handed out instead of draws: an exception in a worker would end the engine,
    and on one rank of several it would leave the others waiting. For the same reason every rank
    computes every chunk of logits, whether it needs them or not: that is a collective call.

    Args:
        request_id: The engine's name of the request, for messages.
        request: What to draw.
    """

    def __init__(self, request_id: str, request: DrawRequest) -> None:
        self._name = f"request {request_id}, sequence {request.sequence_id}"
        self._request = request
        self._next = 0
        self._failure: str | None = None
        self._has_logits = True
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._token_ids: list[npt.NDArray[np.int32]] = []
        self._values: list[npt.NDArray[Any]] = []

    def add(self, start: int, hidden_states: torch.Tensor, logits: LogitsFunction) -> None:
        """Takes the next step.

        Args:
            start: Position of the first row.
            hidden_states: (R, H): what the head reads at positions start to start + R - 1.
            logits: The model's head.
        """
        stop = start + len(hidden_states)
        if start != self._next:
            self._fail(f"the engine went on at position {start}, expected {self._next}")
        self._next = stop
        positions = start + np.flatnonzero(self._request.captured[start:stop])
        for first in range(0, len(positions), self._request.chunk_rows):
            chunk = positions[first : first + self._request.chunk_rows]
            rows = logits(_select(hidden_states, chunk - start))
            if rows is None:
                self._has_logits = False
            elif self._failure is None:
                try:
                    self._draw(rows, chunk)
                except InvalidArgumentError as error:
                    self._fail(str(error))

    def packed(self, prompt_length: int) -> torch.Tensor | None:
        """What travels, after the last prompt row; None on a rank that saw no logits."""
        import torch

        if self._next != prompt_length or len(self._request.captured) != prompt_length:
            self._fail(
                f"the prompt has {prompt_length} tokens, {self._next} rows of it were computed, "
                f"and the mask has {len(self._request.captured)} positions"
            )
        if not self._has_logits:
            return None
        if self._failure is not None:
            return torch.from_numpy(pack_failure(self._failure))
        weighted = self._request.sample.get("proposal_temperature", 1.0) != 1.0
        draws = WindowDraws(
            sequence_id=self._request.sequence_id,
            lengths=_joined(self._lengths, np.int64),
            token_ids=_joined(self._token_ids, np.int32),
            counts=None if weighted else _joined(self._values, np.uint16),
            weights=_joined(self._values, np.float32) if weighted else None,
        )
        return torch.from_numpy(pack(draws))

    def _draw(self, logits: torch.Tensor, positions: Positions) -> None:
        import torch

        if logits.dtype != torch.float32:
            raise InvalidArgumentError(
                f"the engine's head returned {str(logits.dtype).removeprefix('torch.')} logits, "
                "whose rounding biases the draws: start it with "
                "hf_overrides={'head_dtype': 'float32'}"
            )
        vocab_size = self._request.vocab_size
        if logits.shape != (len(positions), logits.shape[-1]) or logits.shape[-1] < vocab_size:
            raise InvalidArgumentError(
                f"the engine's head returned logits of shape {tuple(logits.shape)} for "
                f"{len(positions)} positions and a vocabulary of {vocab_size}"
            )
        logits = logits[:, :vocab_size]
        keys = np.empty((len(positions), 2), np.uint64)
        keys[:, 0] = self._request.sequence_id
        keys[:, 1] = positions
        try:
            draws = sample(logits, position_keys=keys, **self._request.sample)
        except InvalidArgumentError as error:
            # The maximum of a row is NaN, +inf or -inf exactly where it has no distribution.
            usable = torch.isfinite(logits.amax(dim=-1)).cpu().numpy()
            if usable.all():
                raise
            raise InvalidArgumentError(
                f"the logits of position {positions[usable.argmin()]} hold NaN or +inf, or are "
                "all -inf"
            ) from error
        self._lengths.append(np.diff(draws.offsets.cpu().numpy()))
        self._token_ids.append(draws.token_ids.cpu().numpy())
        values = draws.weights if draws.counts is None else draws.counts
        self._values.append(values.cpu().numpy())

    def _fail(self, message: str) -> None:
        if self._failure is None:
            self._failure = f"{self._name}: {message}"


def _select(hidden_states: torch.Tensor, rows: Positions) -> torch.Tensor:
    import torch

    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first == count - 1:  # all of them: a view
        return hidden_states[first : first + count]
    return hidden_states[torch.from_numpy(rows).to(hidden_states.device)]


def _joined(parts: list[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype)
