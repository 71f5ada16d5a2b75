"""α · cross-entropy + (1 - α) · distillation as one target: rows of one entry more.

Both are linear in their target, so that their mixture is the loss of the mixed target. A label that
was also drawn is merged with that entry, because a row names an id once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.host_memory import is_host


@dataclass(frozen=True)
class Entries:
    """Entries in the order of their rows.

    Attributes:
        row: (E,) int64. token_id: (E,) int64. weight: (E,), of the compute dtype.
        offsets: (R + 1,) int64, the entries of each row. bounds: The same in host memory.
        occupied: (R,) bool, the rows that have an entry.
    """

    row: Tensor
    token_id: Tensor
    weight: Tensor
    offsets: Tensor
    bounds: Tensor
    occupied: Tensor


def mix_labels(entries: Entries, labels: Tensor, alpha: float, width: int) -> Entries:
    """The entries with factor 1 - alpha, and those of the labels with factor alpha.

    A factor of 0 takes its entries away, so that alpha = 1 is cross-entropy alone.

    Rows of a device all get one entry more, since the host cannot know which of them need it. Where
    the label is ignored or merged, that entry has weight 0, at an id that the row does not hold:
    this changes neither loss nor gradient. In host memory such entries are left out.

    Args:
        entries: Of R rows, ids below `width`.
        labels: (R,) int64, ids or -100 for none.
        alpha: Above 0 and at most 1.
        width: Columns of the logits.
    """
    if alpha == 1.0:
        entries = _without_entries(entries)
    labelled = labels != IGNORED_LABEL
    same = entries.token_id == labels[entries.row]
    weight = entries.weight * (1.0 - alpha) + alpha * same.to(entries.weight.dtype)
    drawn = torch.zeros_like(labels).index_add_(0, entries.row, same.long()) > 0
    needed = labelled & ~drawn
    # The label of a row comes behind its entries, which all rows before it have moved on by one.
    number = torch.arange(len(labels), device=labels.device)
    at_entry = torch.arange(len(entries.row), device=labels.device) + entries.row
    at_label = entries.offsets[1:] + number

    def woven(of_entries: Tensor, of_labels: Tensor) -> Tensor:
        both = of_entries.new_empty(len(at_entry) + len(at_label))
        both[at_entry] = of_entries
        both[at_label] = of_labels
        return both

    row = woven(entries.row, number)
    offsets = entries.offsets + torch.arange(len(labels) + 1, device=labels.device)
    bounds = entries.bounds + torch.arange(len(labels) + 1)
    mixed = Entries(
        row,
        woven(entries.token_id, torch.where(needed, labels, 0)),
        woven(weight, alpha * needed.to(weight.dtype)),
        offsets,
        bounds,
        entries.occupied | labelled,
    )
    longest = int(entries.bounds.diff().max()) if len(labels) else 0
    # A row that holds every id has none to spare: that one case waits for the device.
    if is_host(labels.device) or longest >= width:
        return _compact(mixed, woven(torch.ones_like(same), needed))
    mixed.token_id[at_label] = torch.where(needed, labels, _spare_ids(entries, row, offsets))
    return mixed


def _without_entries(entries: Entries) -> Entries:
    none = entries.row[:0]
    return Entries(
        none,
        none,
        entries.weight[:0],
        torch.zeros_like(entries.offsets),
        torch.zeros_like(entries.bounds),
        torch.zeros_like(entries.occupied),
    )


def _spare_ids(entries: Entries, slot_row: Tensor, slot_offsets: Tensor) -> Tensor:
    """(R,) the smallest id that each row does not hold.

    A row of K entries lacks at least one of the ids 0 to K, and has K + 1 slots to tick them off.
    """
    start = slot_offsets[:-1]
    num_slots = len(slot_row)
    ticked = entries.token_id.new_zeros(num_slots + 1)  # the last is for ids above K
    in_reach = entries.token_id < slot_offsets.diff()[entries.row]
    ticked[torch.where(in_reach, start[entries.row] + entries.token_id, num_slots)] = 1
    candidate = torch.arange(num_slots, device=slot_row.device) - start[slot_row]
    candidate = torch.where(ticked[:-1] == 0, candidate, num_slots)
    spare = torch.full_like(start, num_slots)
    return spare.scatter_reduce_(0, slot_row, candidate, "amin")


def _compact(entries: Entries, needed: Tensor) -> Entries:
    """The needed entries alone."""
    lengths = torch.zeros_like(entries.offsets[1:])
    lengths.index_add_(0, entries.row, needed.long())
    offsets = torch.zeros_like(entries.offsets)
    offsets[1:] = lengths.cumsum(0)
    return Entries(
        entries.row[needed],
        entries.token_id[needed],
        entries.weight[needed],
        offsets,
        offsets.cpu(),
        entries.occupied,
    )
