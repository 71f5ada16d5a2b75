"""General compressors, each at its strongest usual setting."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import dataclass

import lz4.block

_ZSTD_LEVEL = 19
_DICTIONARY_BYTES = 112_640  # what the zstd command trains


@dataclass(frozen=True)
class Compressor:
    """Bytes to fewer bytes and back; `model_bytes` is what both sides must have beforehand."""

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]
    model_bytes: int = 0


def general_compressors() -> list[Compressor]:
    """Needs brotli and zstandard (requirements-codecs.txt), which --quick does without."""
    import brotli

    return [
        zstd(),
        Compressor("xz-9e", _xz, lzma.decompress),
        Compressor("brotli-11", lambda data: brotli.compress(data, lgwin=24), brotli.decompress),
        Compressor("lz4", lz4.block.compress, lz4.block.decompress),
        Compressor("lz4hc", _lz4hc, lz4.block.decompress),
    ]


def zstd(learn_from: list[bytes] | None = None) -> Compressor:
    """zstd -19, with a dictionary if there is something to learn it from."""
    import zstandard

    if learn_from is None:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        return Compressor("zstd-19", compressor.compress, zstandard.ZstdDecompressor().decompress)
    learnt = zstandard.train_dictionary(_DICTIONARY_BYTES, learn_from, level=_ZSTD_LEVEL)
    return Compressor(
        "zstd-19 dict",
        zstandard.ZstdCompressor(level=_ZSTD_LEVEL, dict_data=learnt).compress,
        zstandard.ZstdDecompressor(dict_data=learnt).decompress,
        len(learnt.as_bytes()),
    )


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _lz4hc(data: bytes) -> bytes:
    return lz4.block.compress(data, mode="high_compression", compression=12)
