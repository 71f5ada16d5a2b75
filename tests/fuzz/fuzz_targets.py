"""The programs that fuzz the core, which ctest replays."""

CXX_TARGETS = (
    "fuzz_shard",
    "fuzz_block",
    "fuzz_compact",
    "fuzz_model",
    "fuzz_round_trip",
    "fuzz_simd",
)
