"""The state of a `torchdata.StatefulDataLoader`, read for the dataset's position within it.

Such a state is tied to the number of workers, since it holds one dataset state for each of them.
The batches that the loader handed out say where the pass as a whole was: that any loader can use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparselogits.errors import MismatchError

# torchdata's names (0.11: stateful_dataloader.py, incremental_state.py)
_SNAPSHOT = "_snapshot"
_SNAPSHOT_STEP = "_snapshot_step"
_SINCE_SNAPSHOT = "_steps_since_snapshot"
_WORKERS = "_worker_snapshots"
_DATASET = "dataset_state"
_YIELDED = "_num_yielded"
_FINISHED = "_iterator_finished"


@dataclass(frozen=True)
class LoaderState:
    """What a loader's state says.

    Attributes:
        dataset_state: Of the dataset in the loader's own process, or in its first worker.
        batches: Handed out in this pass since it began in the loader's workers. Where there are
            none `dataset_state` is the position itself.
        finished: Whether the pass has ended.
    """

    dataset_state: Mapping[str, Any]
    batches: int
    finished: bool


def loader_state(state: Mapping[str, Any]) -> LoaderState | None:
    """Reads the state of a loader; None where it is no loader's.

    Raises:
        MismatchError: It is a loader's, of a dataset that keeps no state.
    """
    if _SNAPSHOT in state:
        snapshot = state[_SNAPSHOT]
        workers = snapshot[_WORKERS]
        inner = workers[min(workers)][_DATASET]
        batches = snapshot[_SNAPSHOT_STEP] + state[_SINCE_SNAPSHOT]
    elif _FINISHED in state:
        inner, batches = state.get(_DATASET), state[_YIELDED]
    else:
        return None
    if inner is None:
        raise MismatchError("the loader's state holds none of a SparseLogitDataset")
    return LoaderState(inner, batches, bool(state[_FINISHED]))
