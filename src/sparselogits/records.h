// Records in memory: what goes into a codec and what comes out of it.
#pragma once

#include <cstdint>

#include "sparselogits/bytes.h"

namespace sparselogits {

enum class ValueKind : uint8_t { kCounts = 0, kWeights = 1 };
enum class WeightDtype : uint8_t { kNone = 0, kFloat32 = 1, kFloat16 = 2, kBfloat16 = 3 };

// The parameters of a cache that shape its records.
struct RecordFormat {
  uint32_t vocab_size = 0;
  uint32_t rounds = 0;
  ValueKind value_kind = ValueKind::kCounts;
  WeightDtype weight_dtype = WeightDtype::kNone;
  bool store_tokens = true;

  bool operator==(const RecordFormat&) const = default;
};

inline int WeightBits(WeightDtype dtype) { return dtype == WeightDtype::kFloat32 ? 32 : 16; }

// The positions of one block, to be encoded. Ids ascend strictly within a record.
struct BlockView {
  std::span<const uint32_t> tokens;       // one a position; unread unless stored
  std::span<const uint32_t> entries;      // entries of each position
  std::span<const uint32_t> token_ids;    // of all records, one after the other
  std::span<const uint16_t> counts;       // counts caches: one an entry
  std::span<const uint32_t> weight_bits;  // weights caches: bit patterns of weight_dtype
  size_t num_positions() const { return entries.size(); }

  // num_positions positions from the first one on, which have num_entries entries from first_entry.
  BlockView Slice(size_t first, size_t num_positions, size_t first_entry,
                  size_t num_entries) const {
    const auto of_entries = [&](auto column) {
      return column.empty() ? column : column.subspan(first_entry, num_entries);
    };
    return {tokens.empty() ? tokens : tokens.subspan(first, num_positions),
            entries.subspan(first, num_positions), token_ids.subspan(first_entry, num_entries),
            of_entries(counts), of_entries(weight_bits)};
  }
};

// Decoded positions in CSR form, growing: the output of every read.
struct RecordBatch {
  Buffer<int64_t> offsets;    // (positions + 1); the caller puts the first 0
  Buffer<int32_t> token_ids;  // (entries), ascending within a record
  Buffer<uint16_t> counts;    // (entries) in counts caches
  Buffer<float> weights;      // (entries) in weights caches
};

}  // namespace sparselogits
