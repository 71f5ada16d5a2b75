// Every limit of the format, once. formats/v1.md section 10 is the normative list.
#pragma once

#include <cstdint>

namespace sparselogits {

inline constexpr uint32_t kMaxVocabSize = 1u << 24;
inline constexpr uint32_t kMaxRounds = 65535;
inline constexpr uint32_t kMaxEntriesPerRecord = 65535;
inline constexpr uint64_t kMaxPositionsPerShard = 0xFFFFFFFFu;
inline constexpr uint64_t kMaxSequencesPerShard = 1u << 28;
inline constexpr uint32_t kMaxFrameLength = 1u << 30;
inline constexpr uint64_t kMaxShardLength = uint64_t{1} << 35;
inline constexpr uint32_t kMaxMetadataLength = 1u << 20;
inline constexpr int kMinBlockLog2 = 6;
inline constexpr int kMaxBlockLog2 = 16;

// A writer ends a block early at this many entries, which keeps its content far below
// kMaxFrameLength whatever the vocabulary, the rounds and the weights are.
inline constexpr uint32_t kMaxEntriesPerBlock = 1u << 21;
static_assert((uint64_t{kMaxEntriesPerBlock} + kMaxEntriesPerRecord) * 16 < kMaxFrameLength,
              "an entry takes at most 16 bytes: a gamma code, an id and a float32");

inline constexpr uint32_t kStretchPositions = 64;
inline constexpr int kDefaultBlockLog2 = 10;

}  // namespace sparselogits
