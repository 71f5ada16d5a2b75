"""`UnitPlan`: what a distributed capture makes, and how its windows are cut into units."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from sparselogits.agreement import check_same_config, check_same_metadata
from sparselogits.checks import integer
from sparselogits.config import CacheConfig
from sparselogits.errors import CorruptionError, InvalidArgumentError, MismatchError
from sparselogits.limits import MAX_SHARDS
from sparselogits.manifest import check_metadata

_FORMAT = "sparselogits capture plan"
_VERSION = 1
_PLAIN_FIELDS = ("num_windows", "unit_windows", "windows_digest", "codec", "codec_model")


@dataclass(frozen=True)
class UnitPlan:
    """The facts on which all workers of a capture agree. Unit u is the windows
    [u · unit_windows, (u + 1) · unit_windows).

    Attributes:
        num_windows: Of the whole capture.
        unit_windows: Windows a unit; the last one may have fewer.
        windows_digest: Identity of the windows: tokens, sequence ids, mask.
        codec: Of the finished cache. Units are "packed", unless there is a model.
        codec_model: Digest of the model that units are coded with, or None.
        config, metadata: Of every unit, as a capture of these options records them.
    """

    num_windows: int
    unit_windows: int
    windows_digest: str
    codec: str
    codec_model: str | None
    config: CacheConfig
    metadata: dict[str, str]

    @property
    def num_units(self) -> int:
        return number_of_units(self.num_windows, self.unit_windows)

    @property
    def final_config(self) -> CacheConfig:
        """Of the finished cache."""
        return replace(self.config, codec=self.codec)

    def windows_of(self, unit: int) -> range:
        """The windows of a unit, by their index in the whole."""
        start = unit * self.unit_windows
        return range(start, min(start + self.unit_windows, self.num_windows))

    def to_json(self) -> bytes:
        """The content of the plan's file: equal plans give equal bytes."""
        fields = {**asdict(self), "config": self.config.to_dict()}
        facts = {"format": _FORMAT, "version": _VERSION, **fields}
        return json.dumps(facts, indent=1).encode("ascii") + b"\n"

    @staticmethod
    def from_json(data: bytes, path: str) -> UnitPlan:
        """The plan in `data`; `path` is for errors.

        Raises:
            CorruptionError: It is no plan, or one of another release; names the field.
        """
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorruptionError(f"is not JSON: {error}", path) from error
        if not isinstance(facts, dict):
            raise CorruptionError("is not a JSON object", path)
        for name, wanted in (("format", _FORMAT), ("version", _VERSION)):
            if facts.pop(name, None) != wanted:
                raise CorruptionError(f"must be {wanted!r}", path, None, name)
        try:
            config = CacheConfig.from_dict(facts.pop("config"))
            metadata = check_metadata(facts.pop("metadata"))
            plan = UnitPlan(**facts, config=config, metadata=metadata)
            number_of_units(plan.num_windows, plan.unit_windows)
        except (KeyError, TypeError, InvalidArgumentError) as error:
            raise CorruptionError(f"is not a plan: {error}", path) from error
        return plan

    def check_same(self, given: UnitPlan, where: str) -> None:
        """Refuses a worker that means another capture.

        Args:
            given: The worker's own plan.
            where: The file of this plan, for errors.

        Raises:
            MismatchError: Or the subclass for the field; names the field and both values.
        """
        check_same_config(self.config, given.config, where, "the capture under way")
        check_same_metadata(self.metadata, given.metadata, where)
        for name in _PLAIN_FIELDS:
            held, other = getattr(self, name), getattr(given, name)
            if held != other:
                raise MismatchError(
                    f"{where}: {name} of the capture under way is {held!r}, not {other!r}"
                )


def number_of_units(num_windows: Any, unit_windows: Any) -> int:
    """How many units there are.

    Raises:
        InvalidArgumentError: A number is wrong, or there would be more units than a cache can
            have shards.
    """
    windows = integer("num_windows", num_windows, 0, (1 << 62) - 1)
    size = integer("unit_windows", unit_windows, 1, (1 << 62) - 1)
    units = -(-windows // size)
    if units > MAX_SHARDS:
        raise InvalidArgumentError(
            f"unit_windows {size} cuts {windows} windows into {units} units, above the limit of "
            f"{MAX_SHARDS} shards a cache: take at least {-(-windows // MAX_SHARDS)}"
        )
    return units
