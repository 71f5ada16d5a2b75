// The fixed facts of the compact codec (formats/v1.md sections 12 and 13), shared by its model, its
// encoder and its decoder.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "sparselogits/huffman.h"
#include "sparselogits/limits.h"
#include "sparselogits/packed_layout.h"
#include "sparselogits/records.h"
#include "sparselogits/value_code.h"

namespace sparselogits::compact {

inline constexpr uint32_t kStretch = 16;  // positions between two entry points
inline constexpr size_t kBlockHeaderLength = 12;
inline constexpr int kMaxStartBits = 32;
inline constexpr uint32_t kMaxBuckets = 256;  // of a class
inline constexpr uint32_t kMaxClasses = 256;
inline constexpr uint32_t kMaxTables = 256;  // of a family
inline constexpr int kMaxIdBits = 24;
inline constexpr uint32_t kMaxHazard = 127;

// The families of codes. Within one, contexts share a number of codes by a map.
enum class Family {
  kClass,
  kEntryNumber,
  kCountPair,
  kCount,
  kGap,
  kTokenRank,
  kTokenBucket,
  kWeight
};
inline constexpr size_t kNumFamilies = 8;

inline constexpr uint32_t kCountLevels = 25;
// Counts above 1 are coded as what they exceed 1 by, two together up to this each.
inline constexpr uint32_t kPairLimit = 7;
inline constexpr uint32_t kPairSymbols = (kPairLimit + 1) * (kPairLimit + 1);
inline constexpr uint32_t kGapLevels = 64;
inline constexpr int kGapMiddle = 40;  // the level where one id is expected in the next bucket
inline constexpr uint32_t kTokenRankContexts = 16;
inline constexpr uint32_t kWeightContexts = 8;

struct FamilyShape {
  uint32_t num_contexts;
  uint32_t num_symbols;
  int width;  // of the longest code

  bool is_used() const { return num_symbols > 1; }
};

// Of a record.
inline uint32_t MostEntries(const RecordFormat& format) {
  return std::min(format.vocab_size,
                  format.value_kind == ValueKind::kCounts ? format.rounds : kMaxEntriesPerRecord);
}

inline FamilyShape ShapeOf(Family family, const RecordFormat& format, uint32_t num_classes) {
  const bool counts = format.value_kind == ValueKind::kCounts;
  const uint32_t most_entries = MostEntries(format);
  switch (family) {
    case Family::kClass: return {num_classes + 1, num_classes, 10};
    case Family::kEntryNumber: return {num_classes, NumValueSymbols(most_entries), 11};
    case Family::kCountPair:
      return {kCountLevels * kCountLevels, counts && most_entries >= 3 ? kPairSymbols : 0, 10};
    case Family::kCount:
      return {kCountLevels * kCountLevels, counts ? NumValueSymbols(format.rounds - 1) : 0, 10};
    case Family::kGap: return {2 * kGapLevels, NumValueSymbols(kMaxBuckets - 1), 11};
    case Family::kTokenRank:
      return {kTokenRankContexts, format.store_tokens ? NumValueSymbols(most_entries) : 0, 10};
    case Family::kTokenBucket: return {num_classes, format.store_tokens ? kMaxBuckets : 0, 12};
    case Family::kWeight: return {kWeightContexts, counts ? 0 : 256u, 11};
  }
  return {};
}

// Four times the logarithm of x to base 2, linear between powers of two. REQUIRES: x >= 1.
inline constexpr uint32_t QuarterLog2(uint32_t x) {
  const auto e = static_cast<uint32_t>(std::bit_width(x)) - 1;
  return 4 * e + static_cast<uint32_t>((uint64_t{x} << 2 >> e) & 3);
}

inline constexpr uint32_t CountLevel(uint32_t x) {
  return x < 8 ? x : std::min(kCountLevels - 1, QuarterLog2(x) - 4);
}

// The context of a count: `excess` rounds are left beyond one for each of `entries` entries.
inline constexpr uint32_t CountContext(uint32_t excess, uint32_t entries) {
  return CountLevel(excess) * kCountLevels + CountLevel(entries);
}

// The context of a gap by how likely an id is in the next bucket: the sum of the QuarterLog2 of the
// number of ids that are left and of kMaxHazard less the bucket's hazard.
inline constexpr uint32_t GapContext(uint32_t sum, bool is_wide) {
  const int level = static_cast<int>(sum) - static_cast<int>(kMaxHazard) + kGapMiddle;
  return static_cast<uint32_t>(std::clamp(level, 0, static_cast<int>(kGapLevels) - 1)) +
         (is_wide ? kGapLevels : 0);
}

// The context of the next token's rank among entries whose largest count is known.
inline constexpr uint32_t TokenRankContext(uint32_t largest_count, uint32_t rounds) {
  return std::min(kTokenRankContexts - 1, (largest_count - 1) * kTokenRankContexts / rounds);
}

inline constexpr uint32_t WeightContext(uint32_t bucket) { return bucket / 32; }

// A weight's 8 bits behind its sign are coded; the others are stored as they are.
inline int RawWeightBits(WeightDtype dtype) { return WeightBits(dtype) - 9; }

}  // namespace sparselogits::compact
