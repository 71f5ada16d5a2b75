// What the tests of both codecs ask of a block's content and of what is decoded from it.
#pragma once

#include <cmath>

#include "check.h"
#include "random_block.h"
#include "sparselogits/codec.h"
#include "sparselogits/half.h"

namespace sparselogits::testing {

// Exactly as many readable bytes as a codec may touch, so that the sanitizer sees any more.
struct Content {
  explicit Content(const Bytes& encoded) : bytes(encoded), size(encoded.size()) {
    bytes.resize(size + kReadPadding);
    bytes.shrink_to_fit();
  }
  ByteSpan span() const { return {bytes.data(), size}; }
  Bytes bytes;
  size_t size;
};

// All the bits of a block's content, which the sections share among them.
inline uint64_t TotalBits(const BlockSections& s) {
  return s.block_header + s.directory + s.tokens + s.presence + s.counts + s.entry_numbers + s.ids +
         s.weights + s.stretch_padding + s.classes;
}

// What was decoded is the block's records from `first` to `last` - 1.
inline void CheckRange(const RandomBlock& block, const RecordFormat& format,
                       const RecordBatch& found, uint32_t first, uint32_t last) {
  size_t entry = 0;
  for (uint32_t position = 0; position < first; ++position) entry += block.entries[position];
  CHECK_EQ(found.offsets.size(), size_t{last - first});
  size_t out = 0;
  for (uint32_t position = first; position < last; ++position) {
    for (uint32_t i = 0; i < block.entries[position]; ++i, ++entry, ++out) {
      CHECK_EQ(found.token_ids[out], static_cast<int32_t>(block.token_ids[entry]));
      if (format.value_kind == ValueKind::kCounts)
        CHECK_EQ(found.counts[out], block.counts[entry]);
      else
        CHECK_EQ(found.weights[out], WeightFromBits(block.weight_bits[entry], format.weight_dtype));
    }
    CHECK_EQ(found.offsets[position - first], static_cast<int64_t>(out));
  }
  CHECK_EQ(found.token_ids.size(), out);
}

// What was decoded, from whatever bytes, is something that a writer could have been given.
inline void CheckValid(const RecordFormat& format, const RecordBatch& found,
                       const std::vector<int32_t>& tokens) {
  const bool counts = format.value_kind == ValueKind::kCounts;
  size_t entry = 0;
  for (size_t i = 0; i < found.offsets.size(); ++i) {
    int64_t id = -1;
    uint32_t sum = 0;
    const auto end = static_cast<size_t>(found.offsets[i]);
    const bool is_empty = entry == end;
    for (; entry < end; ++entry) {
      CHECK(found.token_ids[entry] > id);
      id = found.token_ids[entry];
      if (counts)
        CHECK(found.counts[entry] > 0), sum += found.counts[entry];
      else
        CHECK(std::isfinite(found.weights[entry]) && !std::signbit(found.weights[entry]));
    }
    CHECK(id < static_cast<int64_t>(format.vocab_size));
    if (counts && !is_empty) CHECK_EQ(sum, format.rounds);
  }
  CHECK_EQ(found.token_ids.size(), entry);
  CHECK_EQ((counts ? found.counts.size() : found.weights.size()), entry);
  for (const int32_t token : tokens)
    CHECK(token >= 0 && static_cast<uint32_t>(token) < format.vocab_size);
}

}  // namespace sparselogits::testing
