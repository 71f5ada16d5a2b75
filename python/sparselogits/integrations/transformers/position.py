"""DatasetPosition: where in the cache a Trainer's checkpoint was made."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from sparselogits.errors import MismatchError
from sparselogits.integrations.transformers.loader import CacheLoader


class DatasetPosition(TrainerCallback, ExportableState):
    """Keeps a dataset's state in the checkpoint's `trainer_state.json`, and resumes from it.

    A Trainer skips what it has seen by reading it again, and would go on in any other data as well.
    With the state, skipped batches are not decoded and another cache, seed or batch size is
    refused.

    Attributes:
        position: The state after the batches of the update that is going on.
    """

    def __init__(self) -> None:
        self.position: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """What goes into the checkpoint."""
        return {"args": {}, "attributes": {"position": self.position}}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Positions the dataset before the first epoch."""
        states: Any = state.stateful_callbacks  # by class name
        saved = states.setdefault(type(self).__name__, self.state())
        if not isinstance(train_dataloader, CacheLoader):
            return
        if state.global_step == 0 or args.ignore_data_skip:
            train_dataloader.begin()
            return
        position = saved["attributes"]["position"]
        if position is None:
            raise MismatchError(
                f"the checkpoint of step {state.global_step} was made without a dataset of whole "
                "batches; ignore_data_skip=True begins the epoch again"
            )
        accumulated = args.gradient_accumulation_steps
        updates = max(-(-len(train_dataloader) // accumulated), 1)
        epoch, update = divmod(state.global_step, updates)
        train_dataloader.resume(position, epoch, update * accumulated)
