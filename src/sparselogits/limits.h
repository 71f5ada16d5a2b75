// Every limit of the format, once. formats/v1.md section 10 is the normative list.
#pragma once

#include <cstdint>

namespace sparselogits {

inline constexpr uint32_t kMaxVocabSize = 1u << 24;
inline constexpr uint32_t kMaxRounds = 65535;
inline constexpr uint32_t kMaxEntriesPerRecord = 65535;
inline constexpr int kMinBlockLog2 = 6;
inline constexpr int kMaxBlockLog2 = 16;
inline constexpr uint32_t kMaxEntriesPerBlock = 1u << 22;
inline constexpr uint32_t kMaxBlockLength = 1u << 26;  // content of a BLCK frame
inline constexpr uint32_t kMaxSequencesPerFrame = 1u << 20;
inline constexpr uint32_t kMaxMetadataLength = 1u << 20;
inline constexpr uint32_t kMaxFrameLength = 1u << 30;  // payload and content of any frame
inline constexpr uint64_t kMaxPositionsPerShard = 0xFFFFFFFFu;
inline constexpr uint64_t kMaxSequencesPerShard = 1u << 28;
inline constexpr uint64_t kMaxEntriesPerShard = uint64_t{1} << 40;
inline constexpr uint64_t kMaxShardLength = uint64_t{1} << 35;

// How many times its payload an LZ4-wrapped content may be: LZ4 itself cannot do better than 255.
// Sequences have ids of their own and hashes for fingerprints, which hardly shrink at all.
inline constexpr uint64_t kMaxLz4Ratio = 255;
inline constexpr uint64_t kMaxLz4RatioOfSequences = 32;

inline constexpr uint32_t kFrameUnit = 8;  // INDX stores the offsets of frames in these
inline constexpr uint32_t kStretchPositions = 64;
inline constexpr int kDefaultBlockLog2 = 10;

// A writer ends a block early at this many entries, which keeps it below the limits of a block
// whatever the vocabulary, the rounds and the weights are.
inline constexpr uint32_t kEntriesThatEndABlock = 1u << 21;
inline constexpr uint32_t kMaxBytesPerEntry = 16;  // a gamma code, an id and a float32

// Every limit fits the field that holds the value, and sums of them fit the sums.
static_assert(kMaxRounds <= UINT16_MAX, "counts are u16 in memory");
static_assert(kMaxVocabSize <= INT32_MAX, "ids are int32 in memory");
static_assert(kEntriesThatEndABlock + kMaxEntriesPerRecord <= kMaxEntriesPerBlock);
static_assert(uint64_t{kEntriesThatEndABlock + kMaxEntriesPerRecord} * kMaxBytesPerEntry +
                      (uint64_t{4} << kMaxBlockLog2) * 2 <
                  kMaxBlockLength,
              "the entries, 4 bytes for each token, and a directory");
static_assert(kMaxBlockLength <= kMaxFrameLength && kMaxMetadataLength <= kMaxFrameLength);
static_assert(kMaxFrameLength <= INT32_MAX, "liblz4 counts bytes in int");
static_assert(kMaxPositionsPerShard <= UINT32_MAX, "INDX holds starts as u32");
static_assert(kMaxSequencesPerShard <= UINT32_MAX, "INDX holds starts as u32");
static_assert(kMaxShardLength / kFrameUnit - 1 <= UINT32_MAX, "INDX holds offsets as u32");
static_assert(kMaxEntriesPerShard <= INT64_MAX >> 20, "2^20 shards add up in an int64");

}  // namespace sparselogits
