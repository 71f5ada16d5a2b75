"""Private: use the sparselogits package. Arrays must be C-contiguous, of exactly these dtypes."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# input_ids, labels, offsets, token_ids, weights, lengths, sequence_ids, fingerprints
_BatchArrays: TypeAlias = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.float32],
    npt.NDArray[np.int64],
    npt.NDArray[np.uint64],
    npt.NDArray[np.uint64],
]

class ShardConfig:
    def __init__(
        self,
        *,
        vocab_size: int,
        rounds: int,
        sampler: str,
        temperature: float,
        proposal_temperature: float,
        value_kind: str,
        weight_dtype: str | None,
        codec: str,
        store_tokens: bool,
        tokenizer_fingerprint: int,
    ) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object) -> bool: ...

class CodecModel:
    @staticmethod
    def parse(data: bytes) -> CodecModel: ...
    def to_bytes(self) -> bytes: ...
    @property
    def digest(self) -> int: ...
    @property
    def file_name(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def codes_tokens(self) -> bool: ...
    @property
    def num_classes(self) -> int: ...
    def field_that_differs(self, config: ShardConfig) -> str | None: ...

class DirectoryLock:
    def __init__(self, directory: str) -> None: ...
    def release(self) -> None: ...

class ShardWriter:
    def __init__(
        self,
        partial_path: str,
        config: ShardConfig,
        metadata_json: bytes,
        model: CodecModel | None = None,
    ) -> None: ...
    def append(
        self,
        input_ids: npt.NDArray[np.int64],
        sequence_offsets: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        token_ids: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64] | None,
        weights: npt.NDArray[np.float32] | None,
        sequence_ids: npt.NDArray[np.uint64],
        fingerprints: npt.NDArray[np.uint64] | None,
    ) -> None: ...
    def has_room(self, positions: int, sequences: int, entries: int) -> bool: ...
    def commit(self) -> None: ...
    def finish(self, final_path: str) -> None: ...
    def abandon(self) -> None: ...
    @property
    def num_sequences(self) -> int: ...
    @property
    def num_positions(self) -> int: ...
    @property
    def num_entries(self) -> int: ...
    @property
    def bytes_written(self) -> int: ...
    @property
    def uncommitted_bytes(self) -> int: ...
    @property
    def uuid(self) -> str: ...

class CacheReader:
    def __init__(
        self,
        rows: list[tuple[str, str, int, int, int, int]],
        config: ShardConfig,
        models: list[CodecModel],
        verify_checksums: bool,
        max_open_shards: int = 512,
        shards_come_and_go: bool = False,
    ) -> None: ...
    @property
    def num_sequences(self) -> int: ...
    @property
    def num_positions(self) -> int: ...
    @property
    def num_entries(self) -> int: ...
    def read_sequences(
        self, indices: npt.NDArray[np.int64], start: int, stop: int
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.int32],
        npt.NDArray[np.uint16] | None,
        npt.NDArray[np.float32] | None,
        npt.NDArray[np.int32] | None,
        npt.NDArray[np.int64],
    ]: ...
    def read_positions(
        self, positions: npt.NDArray[np.int64]
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.int32],
        npt.NDArray[np.uint16] | None,
        npt.NDArray[np.float32] | None,
        npt.NDArray[np.int32] | None,
    ]: ...
    def places(
        self, indices: npt.NDArray[np.int64]
    ) -> tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
    ]: ...
    def admit(self, shard: int) -> None: ...
    def dismiss(self, shard: int) -> None: ...
    def sequence_table(
        self,
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]: ...

class PieceReader:
    def __init__(
        self, caches: list[CacheReader], pad_token_id: int, max_free_arrays: int
    ) -> None: ...
    def read(
        self,
        caches: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        row_offsets: npt.NDArray[np.int64],
    ) -> _BatchArrays: ...

class Prefetcher:
    def __init__(self, reader: PieceReader, num_threads: int) -> None: ...
    def submit(
        self,
        caches: npt.NDArray[np.int32],
        sequences: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        row_offsets: npt.NDArray[np.int64],
    ) -> None: ...
    def next(self) -> _BatchArrays: ...
    def close(self) -> None: ...

def index_offset(path: str, header: bytes, footer: bytes) -> int: ...
def sequence_frames(path: str, models: list[CodecModel]) -> list[tuple[int, int]]: ...
def read_shard_info(path: str, models: list[CodecModel]) -> dict[str, Any]: ...
def verify_shard(
    path: str,
    models: list[CodecModel],
    keep_going: bool,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]: ...
def train_model(
    config: ShardConfig,
    input_ids: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64] | None,
    weights: npt.NDArray[np.float32] | None,
    num_classes: int = 0,
    expected_positions: int = 0,
) -> CodecModel: ...
def recover_shard(partial_path: str, final_path: str) -> dict[str, Any]: ...
def fingerprint_tokens(ids: npt.NDArray[np.uint32]) -> int: ...
def xxh64(data: bytes) -> int: ...
def crc32c(data: bytes) -> int: ...
def use_lz4(which: str) -> bool: ...
def format_constants() -> dict[str, Any]: ...
def compact_families(
    vocab_size: int, rounds: int, weights: bool, tokens: bool, num_classes: int
) -> list[tuple[int, int, int]]: ...
def sparse_loss_rows(
    logits: npt.NDArray[np.float32] | npt.NDArray[np.uint16],
    offsets: npt.NDArray[np.int64],
    token_ids: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    keep: npt.NDArray[np.bool_],
    gradient: npt.NDArray[np.float32] | npt.NDArray[np.uint16] | None,
    *,
    softcap: float | None,
    temperature: float,
    scale: float,
    num_threads: int,
) -> npt.NDArray[np.float32]: ...
def advise_huge_pages(array: npt.NDArray[Any]) -> None: ...
def sample_rows(
    logits: npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16],
    position_keys: npt.NDArray[np.uint64],
    *,
    rounds: int,
    sampler: str,
    temperature: float,
    proposal_temperature: float,
    seed: int,
    offset: int,
    self_normalize: bool,
    num_threads: int,
) -> tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int32],
    npt.NDArray[np.uint16] | None,
    npt.NDArray[np.float32] | None,
]: ...
