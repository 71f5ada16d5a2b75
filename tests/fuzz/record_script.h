// The records of a block from the bytes of an input: always valid ones.
#pragma once

#include <set>
#include <vector>

#include "fuzz_support.h"
#include "sparselogits/half.h"
#include "sparselogits/records.h"

namespace sparselogits::fuzz {

inline constexpr uint32_t kMaxScriptPositions = 80;  // five stretches

// Records in one flat form, comparable whatever they came from.
struct FlatBlock {
  std::vector<uint32_t> tokens, entries, token_ids, values;  // values: counts, or bits of weights
  std::vector<uint16_t> counts;

  bool operator==(const FlatBlock&) const = default;
  uint32_t num_positions() const { return static_cast<uint32_t>(entries.size()); }
  uint32_t num_entries() const { return static_cast<uint32_t>(token_ids.size()); }
  BlockView view(ValueKind kind) const {
    BlockView view;
    view.tokens = tokens;
    view.entries = entries;
    view.token_ids = token_ids;
    if (kind == ValueKind::kCounts)
      view.counts = counts;
    else
      view.weight_bits = values;
    return view;
  }
};

inline uint32_t TakeWeight(WeightDtype dtype, Input* input) {
  const auto bits = static_cast<uint32_t>(input->Number(dtype == WeightDtype::kFloat32 ? 4 : 2));
  const uint32_t magnitude = bits & (dtype == WeightDtype::kFloat32 ? 0x7FFFFFFFu : 0x7FFFu);
  return std::isfinite(WeightFromBits(magnitude, dtype)) ? magnitude : 0;
}

// Mostly ids that models list, and few of them; now and then many.
inline std::set<uint32_t> TakeIds(const RecordFormat& format, Input* input) {
  const uint32_t shape = input->Below(256);
  const bool counts = format.value_kind == ValueKind::kCounts;
  const uint32_t most = std::min(format.vocab_size, counts ? format.rounds : 65535u);
  std::set<uint32_t> ids;
  if (shape == 255) {  // a run of them
    const uint32_t k = std::min(most, input->Below(2000));
    const uint32_t first = input->Below(format.vocab_size - k + 1);
    for (uint32_t i = 0; i < k; ++i) ids.insert(first + i);
    return ids;
  }
  const uint32_t k = std::min(most, shape % 8);
  for (uint32_t i = 0; i < k; ++i)
    ids.insert(input->Below(shape < 128 ? std::min(format.vocab_size, 64u) : format.vocab_size));
  return ids;
}

inline void TakeRecord(const RecordFormat& format, Input* input, FlatBlock* block) {
  const std::set<uint32_t> ids = TakeIds(format, input);
  block->entries.push_back(static_cast<uint32_t>(ids.size()));
  uint32_t left = format.rounds;
  auto others = static_cast<uint32_t>(ids.size());
  for (const uint32_t id : ids) {
    block->token_ids.push_back(id);
    if (format.value_kind == ValueKind::kWeights) {
      block->values.push_back(TakeWeight(format.weight_dtype, input));
      continue;
    }
    --others;
    const uint32_t count = others == 0 ? left : 1 + input->Below(left - others);
    block->values.push_back(count);
    block->counts.push_back(static_cast<uint16_t>(count));
    left -= count;
  }
}

inline FlatBlock TakeBlock(const RecordFormat& format, uint32_t num_positions, Input* input) {
  FlatBlock block;
  for (uint32_t p = 0; p < num_positions; ++p) {
    TakeRecord(format, input, &block);
    // One of the record before, or any.
    const uint32_t number = input->Below(format.vocab_size);
    if (!format.store_tokens) continue;
    const uint32_t k = block.entries.back();
    const bool own = k > 0 && number % 2 == 0;
    block.tokens.push_back(own ? block.token_ids[block.token_ids.size() - 1 - number / 2 % k]
                               : number);
  }
  return block;
}

// Some bytes of the content become others.
inline void Damage(Input* input, Bytes* content) {
  for (uint32_t edits = input->Below(8); edits > 0 && !content->empty(); --edits)
    (*content)[input->Below(static_cast<uint32_t>(content->size()))] ^=
        static_cast<uint8_t>(1 + input->Below(255));
  if (input->Below(8) == 0)
    content->resize(input->Below(static_cast<uint32_t>(content->size()) + 1));
}

}  // namespace sparselogits::fuzz
