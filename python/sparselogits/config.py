"""`CacheConfig`: every parameter that is needed to read a cache, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sparselogits import _core
from sparselogits.checks import boolean, choice, integer, positive_float
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_ROUNDS, MAX_VOCAB_SIZE

VALUE_KINDS = ("counts", "weights")
WEIGHT_DTYPES = ("float32", "float16", "bfloat16")
CODECS = ("packed", "compact")
DEFAULT_CODEC = "compact"

_SAMPLER = re.compile(r"[a-z0-9_-]{1,16}")
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{16}")


@dataclass(frozen=True)
class CacheConfig:
    """What a cache holds and how it was sampled; stored in the manifest and in every shard.

    Attributes:
        vocab_size: Number of tokens of the teacher, 1 to 2^24. Stored ids are below it.
        rounds: Draws per position (N in the RS-KD paper), 1 to 65,535.
        sampler: How the draws were made: 1 to 16 characters of a-z 0-9 _ -.
        temperature: Of the teacher's softmax, above 0.
        proposal_temperature: Exponent t of the proposal q ∝ p^t, above 0; 1 draws from p.
        codec: How records become bits. "packed": fields of fixed width, the fastest. "compact":
            entropy-coded with a model that a writer trains (see `CacheWriter`), the smallest.
        store_tokens: Whether the input tokens are stored beside the records.
        tokenizer_fingerprint: 16 hex digits (see `fingerprint_tokenizer`), or None where not
            recorded. Stored in lower case; sixteen zeros mean None in the format.
        value_kind: "counts": integers that sum to `rounds` in each position. "weights": one
            float per entry. Default (None): counts where proposal_temperature is 1, else weights.
        weight_dtype: How weights are stored: "float32", "float16" or "bfloat16". The narrow ones
            round stochastically, keyed by sequence_id, position and token, so that the mean is
            the weight and writing again gives the same bits. Means nothing in a counts cache.

    Raises:
        InvalidArgumentError: A field has the wrong type or is outside its limits.
    """

    vocab_size: int
    rounds: int = 50
    sampler: str = "multinomial"
    temperature: float = 1.0
    proposal_temperature: float = 1.0
    codec: str = DEFAULT_CODEC
    store_tokens: bool = True
    tokenizer_fingerprint: str | None = None
    value_kind: str = None  # type: ignore[assignment]  # __post_init__ replaces None
    weight_dtype: str = "float32"

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "vocab_size": integer("vocab_size", self.vocab_size, 1, MAX_VOCAB_SIZE),
            "rounds": integer("rounds", self.rounds, 1, MAX_ROUNDS),
            "temperature": positive_float("temperature", self.temperature),
            "proposal_temperature": positive_float(
                "proposal_temperature", self.proposal_temperature
            ),
            "codec": choice("codec", self.codec, CODECS),
            "store_tokens": boolean("store_tokens", self.store_tokens),
            "tokenizer_fingerprint": _fingerprint(self.tokenizer_fingerprint),
            "weight_dtype": choice("weight_dtype", self.weight_dtype, WEIGHT_DTYPES),
        }
        kind: Any = self.value_kind
        if kind is None:
            kind = "counts" if checked["proposal_temperature"] == 1.0 else "weights"
        checked["value_kind"] = choice("value_kind", kind, VALUE_KINDS)
        if not isinstance(self.sampler, str) or not _SAMPLER.fullmatch(self.sampler):
            raise InvalidArgumentError(
                f"sampler must be 1 to 16 characters of a-z 0-9 _ -, got {self.sampler!r}"
            )
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The `config` object of the manifest (formats/v1.md, section 8)."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CacheConfig:
        """The inverse of `to_dict`. Unknown keys are ignored, as the format asks.

        Raises:
            InvalidArgumentError: A key is missing, or a value is wrong.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise InvalidArgumentError(f"config has no {missing[0]}")
        if values["value_kind"] is None:
            raise InvalidArgumentError("value_kind must be 'counts' or 'weights', got None")
        return cls(**{name: values[name] for name in names})

    def to_core(self) -> _core.ShardConfig:
        """The same as the C++ core takes it."""
        fingerprint = self.tokenizer_fingerprint
        return _core.ShardConfig(
            vocab_size=self.vocab_size,
            rounds=self.rounds,
            sampler=self.sampler,
            temperature=self.temperature,
            proposal_temperature=self.proposal_temperature,
            value_kind=self.value_kind,
            weight_dtype=self.weight_dtype,
            codec=self.codec,
            store_tokens=self.store_tokens,
            tokenizer_fingerprint=0 if fingerprint is None else int(fingerprint, 16),
        )

    @classmethod
    def from_core(cls, config: _core.ShardConfig) -> CacheConfig:
        """The configuration that a shard's header states."""
        values = config.to_dict()
        fingerprint = values["tokenizer_fingerprint"]
        values["tokenizer_fingerprint"] = f"{fingerprint:016x}" if fingerprint else None
        if values["value_kind"] == "counts":
            values["weight_dtype"] = "float32"
        return cls(**values)

    def first_difference(self, other: CacheConfig) -> str | None:
        """The first field in which two configurations store different things, or None."""
        for field in fields(self):
            if field.name == "weight_dtype" and self.value_kind == "counts":
                continue
            if getattr(self, field.name) != getattr(other, field.name):
                return field.name
        return None


def _fingerprint(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
        raise InvalidArgumentError(
            f"tokenizer_fingerprint must be 16 hex digits or None, got {value!r}"
        )
    return value.lower() if value.strip("0") else None
