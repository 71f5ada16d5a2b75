// Random valid blocks for the codec and shard tests.
#pragma once

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "sparselogits/records.h"

namespace sparselogits::testing {

struct RandomBlock {
  std::vector<uint32_t> tokens, entries, token_ids, weight_bits;
  std::vector<uint16_t> counts;

  RandomBlock(const RecordFormat& format, size_t num_positions, int empty_percent,
              std::mt19937* random) {
    const auto below = [random](uint32_t n) { return static_cast<uint32_t>((*random)() % n); };
    for (size_t position = 0; position < num_positions; ++position) {
      tokens.push_back(below(format.vocab_size));
      std::set<uint32_t> ids;
      if (below(100) >= static_cast<uint32_t>(empty_percent)) {
        const uint32_t most = std::min({format.vocab_size, format.rounds, 40u});
        const uint32_t k = 1 + below(most);
        while (ids.size() < k)
          ids.insert(below(below(2) != 0 ? format.vocab_size : std::min(format.vocab_size, 64u)));
      }
      entries.push_back(static_cast<uint32_t>(ids.size()));
      token_ids.insert(token_ids.end(), ids.begin(), ids.end());
      uint32_t left = format.rounds;
      for (size_t i = ids.size(); i > 0; --i) {
        const auto others = static_cast<uint32_t>(i - 1);
        const uint32_t count =
            others == 0 ? left : 1 + below(std::min(left - others, 1 + left / 4));
        if (format.value_kind == ValueKind::kCounts)
          counts.push_back(static_cast<uint16_t>(count));
        else
          weight_bits.push_back(format.weight_dtype == WeightDtype::kFloat32
                                    ? 0x3F000000u + below(1u << 20)
                                    : 0x3000u + below(1u << 10));
        left -= count;
      }
    }
  }

  BlockView view() const { return {tokens, entries, token_ids, counts, weight_bits}; }
};

inline std::vector<RecordFormat> AllFormats() {
  std::vector<RecordFormat> formats;
  for (const bool tokens : {false, true}) {
    for (const uint32_t vocab_size : {1u, 2u, 49152u, 151936u, 1u << 24})
      for (const uint32_t rounds : {1u, 50u, 65535u})
        formats.push_back({vocab_size, rounds, ValueKind::kCounts, WeightDtype::kNone, tokens});
    for (const WeightDtype dtype :
         {WeightDtype::kFloat32, WeightDtype::kFloat16, WeightDtype::kBfloat16})
      formats.push_back({49152, 50, ValueKind::kWeights, dtype, tokens});
  }
  return formats;
}

}  // namespace sparselogits::testing
