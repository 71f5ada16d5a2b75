#include "sparselogits/code_trainer.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>

#include "sparselogits/compact_encoder.h"
#include "sparselogits/compact_layout.h"

namespace sparselogits {
namespace {

using compact::Family;
using compact::FamilyShape;

// Of each family at most so many codes, none longer than so many bits: small tables are worth more
// than the last hundredth of a bit, because a decoder's caches hold them.
constexpr uint32_t kMaxCodes[compact::kNumFamilies] = {64, 16, 32, 16, 32, 16, 8, 8};
constexpr int kLongestCode[compact::kNumFamilies] = {9, 9, 9, 9, 10, 9, 11, 11};

struct FamilyCounts {
  FamilyShape shape;
  std::vector<uint64_t> counts;  // (contexts, symbols)
};

class CountingSink final : public SymbolSink {
 public:
  explicit CountingSink(const ModelContent& content) {
    for (size_t f = 0; f < compact::kNumFamilies; ++f) {
      families_[f].shape = ShapeOf(static_cast<Family>(f), content.format, content.num_classes());
      families_[f].counts.assign(
          size_t{families_[f].shape.num_contexts} * families_[f].shape.num_symbols, 0);
    }
  }
  void PutSymbol(Family family, uint32_t context, uint32_t symbol) override {
    FamilyCounts& f = families_[static_cast<size_t>(family)];
    ++f.counts[size_t{context} * f.shape.num_symbols + symbol];
  }
  void PutBits(uint64_t, int) override {}
  void Forget(Family family) {
    auto& counts = families_[static_cast<size_t>(family)].counts;
    std::fill(counts.begin(), counts.end(), 0);
  }
  const FamilyCounts& family(size_t f) const { return families_[f]; }

 private:
  FamilyCounts families_[compact::kNumFamilies];
};

// Every symbol can be coded, however rare: all counts are multiplied, and none is left at 0. Gaps
// and buckets are limited by the classes, numbers by the rounds, so no code is wasted on the
// impossible.
CodeFamily FamilyFrom(const FamilyCounts& counted, uint32_t max_codes, int longest) {
  const auto [num_contexts, num_symbols, width] = counted.shape;
  assert(longest <= width && num_symbols <= 1u << longest);
  CodeFamily family;
  family.map = ShareCodes(counted.counts, num_symbols, max_codes);
  const uint32_t num_codes = *std::max_element(family.map.begin(), family.map.end()) + 1u;
  for (uint32_t code = 0; code < num_codes; ++code) {
    std::vector<uint64_t> sum(num_symbols, 1);
    for (uint32_t context = 0; context < num_contexts; ++context)
      if (family.map[context] == code)
        for (uint32_t s = 0; s < num_symbols; ++s)
          sum[s] += 32 * counted.counts[size_t{context} * num_symbols + s];
    family.lengths.push_back(CodeLengths(sum, longest));
  }
  return family;
}

}  // namespace

std::vector<uint8_t> ShareCodes(std::span<const uint64_t> counts, uint32_t num_symbols,
                                uint32_t max_codes) {
  const size_t num_contexts = counts.size() / num_symbols;
  std::vector<double> totals(num_contexts), means(num_contexts);
  std::vector<uint32_t> order;
  for (uint32_t context = 0; context < num_contexts; ++context) {
    for (uint32_t s = 0; s < num_symbols; ++s) {
      const auto n = static_cast<double>(counts[context * num_symbols + s]);
      totals[context] += n;
      means[context] += n * s;
    }
    if (totals[context] > 0) {
      means[context] /= totals[context];
      order.push_back(context);
    }
  }
  std::vector<uint8_t> map(num_contexts, 0);
  if (order.empty()) return map;
  // Contexts in the order of their mean symbol, cut into parts of equal weight, start the search.
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return means[a] < means[b]; });
  const double all = std::accumulate(totals.begin(), totals.end(), 0.0);
  double before = 0;
  const uint32_t num_codes = std::min<uint32_t>(max_codes, static_cast<uint32_t>(order.size()));
  if (num_codes == order.size()) {
    for (uint32_t i = 0; i < order.size(); ++i) map[order[i]] = static_cast<uint8_t>(i);
  } else {
    for (const uint32_t context : order) {
      map[context] = static_cast<uint8_t>(
          std::min<double>(num_codes - 1, std::floor(before / all * num_codes)));
      before += totals[context];
    }
    std::vector<double> costs(size_t{num_codes} * num_symbols);
    for (int round = 0; round < 12; ++round) {
      std::vector<double> sums(size_t{num_codes} * num_symbols, 0.02);
      for (const uint32_t context : order)
        for (uint32_t s = 0; s < num_symbols; ++s)
          sums[map[context] * size_t{num_symbols} + s] +=
              static_cast<double>(counts[context * num_symbols + s]);
      for (uint32_t code = 0; code < num_codes; ++code) {
        const double* const row = &sums[size_t{code} * num_symbols];
        const double total = std::accumulate(row, row + num_symbols, 0.0);
        for (uint32_t s = 0; s < num_symbols; ++s)
          costs[size_t{code} * num_symbols + s] = -std::log2(row[s] / total);
      }
      for (const uint32_t context : order) {
        double best = 1e300;
        for (uint32_t code = 0; code < num_codes; ++code) {
          double cost = 0;
          for (uint32_t s = 0; s < num_symbols; ++s)
            cost += static_cast<double>(counts[context * num_symbols + s]) *
                    costs[size_t{code} * num_symbols + s];
          if (cost < best) best = cost, map[context] = static_cast<uint8_t>(code);
        }
      }
    }
  }
  // Contexts that never occurred take the code of the nearest one before them that did.
  uint8_t nearest = map[order.front()];
  for (uint32_t context = 0; context < num_contexts; ++context)
    nearest = totals[context] > 0 ? map[context] : (map[context] = nearest);
  // Codes that no context uses are dropped.
  std::vector<uint8_t> renamed(num_codes, 0);
  std::vector<bool> used(num_codes, false);
  for (const uint8_t code : map) used[code] = true;
  uint8_t next = 0;
  for (uint32_t code = 0; code < num_codes; ++code)
    if (used[code]) renamed[code] = next++;
  for (uint8_t& code : map) code = renamed[code];
  return map;
}

void TrainCodes(const std::vector<BlockView>& learnt, const std::vector<BlockView>& held_out,
                ModelContent* content) {
  // Once with even costs of the classes, once with those of the first time.
  for (int round = 0; round < 2; ++round) {
    CountingSink sink(*content);
    CompactEncoder encoder(*content);
    for (const BlockView& block : learnt)
      encoder.Describe(block, content->format.store_tokens, &sink);
    sink.Forget(Family::kGap);
    for (const BlockView& block : held_out)
      encoder.Describe(block, content->format.store_tokens, &sink);
    for (size_t f = 0; f < compact::kNumFamilies; ++f)
      if (sink.family(f).shape.is_used())
        content->families[f] = FamilyFrom(sink.family(f), kMaxCodes[f], kLongestCode[f]);
  }
}

}  // namespace sparselogits
