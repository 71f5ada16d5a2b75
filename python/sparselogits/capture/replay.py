"""The model's own forward, cut in two: its body once, its head a few rows at a time.

Calling the output head on hidden states is silently wrong wherever the forward changes logits
afterwards (soft-caps of Gemma 2 and 3, scales of Cohere and Granite). So the forward itself is run
again for every chunk of rows, with the body's output replaced by a slice of what the body gave.
"""

from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from sparselogits.capture.model_facts import output_head
from sparselogits.capture.modes import replaced_forward
from sparselogits.errors import InvalidArgumentError

# Matrix products of a few rows take other kernels than large ones and differ in the last bits.
# Chunks are filled up to this many rows so that draws do not depend on how rows are chunked.
_MIN_ROWS = 32


class SplitModel:
    """A causal LM whose logits can be had a chunk of rows at a time.

    Use inside `torch.inference_mode()` and `float32_head(model)`; `capture` does both.

    Args:
        model: A Hugging Face causal LM, or a module with the same conventions.
        vocab_size: Logit columns from here on are padding and cut off.
        probe: Token ids of the self-check, (B, S) int64 with S ≥ 2, on any device.

    Raises:
        InvalidArgumentError: No submodule can be cut out such that chunked and full logits agree.
            The message tells by how much the best candidate missed.
    """

    def __init__(self, model: nn.Module, vocab_size: int, probe: torch.Tensor) -> None:
        self._model = model
        self._vocab_size = vocab_size
        self._options = _forward_options(model)
        self.device = _input_device(model)
        self._body = self._find_body(probe.to(self.device))

    @property
    def model(self) -> nn.Module:
        return self._model

    @property
    def body_dtype(self) -> torch.dtype:
        """Of the hidden states that feed the head."""
        return _last_hidden(self._template).dtype

    def hidden(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Runs the body once.

        Args:
            input_ids: (B, S) int64.
            attention_mask: (B, S), 0 at padding on the right, or (B, 1, S, S), added to the
                attention scores; None for full windows.
            position_ids: (B, S) int64; None leaves them to the model.

        Returns:
            What feeds the head, (B, S, H).
        """
        kwargs = dict(self._options)
        for name, tensor in (("attention_mask", attention_mask), ("position_ids", position_ids)):
            if tensor is not None:
                kwargs[name] = tensor.to(self.device)
        return _last_hidden(self._run_body(self._body, input_ids.to(self.device), kwargs))

    def logits(self, hidden_rows: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The logits of some rows, as the whole forward would give them.

        Args:
            hidden_rows: (R, H), rows of what `hidden` returned.
            input_ids: (R,) int64, the token of each row.

        Returns:
            (R, vocab_size) float32.
        """
        return self._replay(self._body, hidden_rows, input_ids.to(self.device))[
            :, : self._vocab_size
        ]

    def _run_body(self, body: nn.Module, ids: torch.Tensor, kwargs: dict[str, Any]) -> Any:
        """The body's output inside a whole forward, which ends there: no head, no logits."""
        original = body.forward

        def stop_after(*args: Any, **kw: Any) -> Any:
            raise _BodyDoneError(original(*args, **kw))

        with replaced_forward(body, stop_after):
            try:
                self._model(input_ids=ids, **kwargs)
            except _BodyDoneError as done:
                return done.output
        raise InvalidArgumentError(f"{type(body).__name__} was not called by the model's forward")

    def _replay(
        self, body: nn.Module, hidden_rows: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        rows = len(ids)
        if rows < _MIN_ROWS:
            fill = torch.zeros(_MIN_ROWS, dtype=torch.int64, device=ids.device)
            fill[:rows] = torch.arange(rows, device=ids.device)
            hidden_rows, ids = hidden_rows[fill.to(hidden_rows.device)], ids[fill]

        def stand_in(*args: Any, **kw: Any) -> Any:
            return _like(self._template, hidden_rows[None])

        with replaced_forward(body, stand_in):
            output = self._model(input_ids=ids[None], **self._options)
        return _logits_of(output)[0, :rows]

    def _find_body(self, probe: torch.Tensor) -> nn.Module:
        full = _logits_of(self._model(input_ids=probe, **self._options))
        self._check_head(full, probe)
        failures = []
        for name, candidate in _candidates(self._model, probe, self._options):
            try:
                self._template = self._run_body(candidate, probe, dict(self._options))
                hidden = _last_hidden(self._template)
                if hidden.ndim != 3 or hidden.shape[:2] != probe.shape:
                    raise InvalidArgumentError(f"its output has shape {tuple(hidden.shape)}")
                failure = self._disagreement(candidate, hidden, probe, full)
            except Exception as error:  # whatever a foreign forward raises rules the candidate out
                failure = f"{type(error).__name__}: {error}"
            if failure is None:
                return candidate
            failures.append(f"{name}: {failure}")
        raise InvalidArgumentError(
            f"{type(self._model).__name__} cannot be captured in chunks: with its body's output "
            "sliced, its forward does not give the logits of the whole window. Tried "
            + ("; ".join(failures) or "nothing: the forward calls no submodule")
        )

    def _disagreement(
        self, body: nn.Module, hidden: torch.Tensor, probe: torch.Tensor, full: torch.Tensor
    ) -> str | None:
        """None where logits in unequal chunks that cross rows of the batch equal the full ones."""
        flat, ids = hidden.flatten(0, 1), probe.flatten()
        cuts = [0, 1, 1 + len(ids) // 2, len(ids)]
        parts = [self._replay(body, flat[a:b], ids[a:b]) for a, b in pairwise(cuts) if b > a]
        chunked, whole = torch.cat(parts), full.flatten(0, 1)
        finite = torch.isfinite(whole)
        if not torch.equal(finite, torch.isfinite(chunked)):
            return "non-finite logits in other places"
        error = float((chunked - whole)[finite].abs().amax()) if finite.any() else 0.0
        limit = 1e-4 * max(1.0, float(whole[finite].abs().amax()) if finite.any() else 0.0)
        return None if error <= limit else f"logits differ by {error:.3g}, limit {limit:.3g}"

    def _check_head(self, full: torch.Tensor, probe: torch.Tensor) -> None:
        if full.dtype != torch.float32 or _is_rounded(full, output_head(self._model)):
            raise InvalidArgumentError(
                f"{type(self._model).__name__} rounds its logits below float32 although its head "
                "computes in float32 (it bypasses the head, or casts afterwards): samples of them "
                "would be biased"
            )
        if full.ndim != 3 or full.shape[:2] != probe.shape or full.shape[2] < self._vocab_size:
            raise InvalidArgumentError(
                f"logits have shape {tuple(full.shape)} for {tuple(probe.shape)} tokens and a "
                f"vocabulary of {self._vocab_size}"
            )


class _BodyDoneError(Exception):
    """Carries the body's output out of a forward that has nothing left to do."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def _candidates(
    model: nn.Module, probe: torch.Tensor, options: dict[str, Any]
) -> list[tuple[str, nn.Module]]:
    """Submodules that the forward calls before the head and that could be the body, best first.

    Modules that contain the head (the inner model of an adapter) are looked into; others are not.
    Heavy modules come first, and among those the one nearest to the head: a final norm is light
    and is replayed, an embedding is heavy but runs early.
    """
    head = output_head(model)
    around_head = {id(m) for m in model.modules() if any(sub is head for sub in m.modules())}
    called: list[tuple[str, nn.Module]] = []
    depth = 0
    handles = []

    def enter(name: str, module: nn.Module) -> None:
        nonlocal depth
        if depth == 0 and all(module is not seen for _, seen in called):
            called.append((name, module))
        depth += 1

    def leave() -> None:
        nonlocal depth
        depth -= 1

    for name, module in model.named_modules():
        if id(module) not in around_head:
            handles.append(module.register_forward_pre_hook(lambda m, _, name=name: enter(name, m)))
            handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        model(input_ids=probe, **options)
    finally:
        for handle in handles:
            handle.remove()
    weights = [sum(p.numel() for p in module.parameters()) for _, module in called]
    heavy = max(weights, default=0) / 100
    order = sorted(range(len(called)), key=lambda i: (weights[i] >= heavy, i), reverse=True)
    return [called[i] for i in order]


def _forward_options(model: nn.Module) -> dict[str, Any]:
    """Keywords that keep a forward lean, as far as this one takes them."""
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    # The first two are useless to us; some forwards read past key values of a cache that the
    # replayed body never filled.
    wanted = {"use_cache": False, "output_hidden_states": False, "return_dict": True}
    is_hugging_face = hasattr(model, "config")
    return {k: v for k, v in wanted.items() if k in parameters or (takes_any and is_hugging_face)}


def _input_device(model: nn.Module) -> torch.device:
    getter = getattr(model, "get_input_embeddings", None)
    embeddings = getter() if callable(getter) else None
    weight = getattr(embeddings, "weight", None)
    if isinstance(weight, torch.Tensor):
        return weight.device
    return next(model.parameters()).device


def _last_hidden(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    named = getattr(output, "last_hidden_state", None)
    hidden = named if named is not None else output[0]
    if not isinstance(hidden, torch.Tensor):
        raise InvalidArgumentError(f"no hidden states in its output {type(output).__name__}")
    return hidden


def _like(template: Any, hidden: torch.Tensor) -> Any:
    """The body's output again, in its own type, with other hidden states and nothing else."""
    if isinstance(template, torch.Tensor):
        return hidden
    if isinstance(template, (tuple, list)):
        return type(template)([hidden, *([None] * (len(template) - 1))])
    return type(template)(last_hidden_state=hidden)


def _is_rounded(logits: torch.Tensor, head: nn.Module) -> bool:
    """Whether float32 logits of a bf16 or fp16 model hold nothing that bf16 or fp16 could not."""
    if all(p.dtype == torch.float32 for p in head.parameters()):
        return False
    values = logits[torch.isfinite(logits) & (logits != 0)]
    return values.numel() > 0 and any(
        torch.equal(values, values.to(dtype).float()) for dtype in (torch.bfloat16, torch.float16)
    )


def _logits_of(output: Any) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    logits = getattr(output, "logits", None)
    logits = logits if logits is not None else output[0]
    if not isinstance(logits, torch.Tensor):
        raise InvalidArgumentError(f"no logits in the model's output {type(output).__name__}")
    return logits
