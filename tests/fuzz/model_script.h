// A valid codec model from the bytes of an input: any lists, buckets and codes that the format
// allows, not only those that training gives.
#pragma once

#include <numeric>

#include "fuzz_support.h"
#include "sparselogits/compact_model.h"

namespace sparselogits::fuzz {

inline RecordFormat TakeFormat(Input* input) {
  RecordFormat format;
  const uint8_t kind = input->Byte();
  format.store_tokens = (kind & 1) != 0;
  format.weight_dtype = static_cast<WeightDtype>((kind >> 1) % 4);
  format.value_kind =
      format.weight_dtype == WeightDtype::kNone ? ValueKind::kCounts : ValueKind::kWeights;
  constexpr uint32_t kVocabSizes[] = {1, 2, 3, 64, 100, 1000, 65536, 65537};
  constexpr uint32_t kRounds[] = {1, 2, 3, 18, 50, 1000, 65535};
  format.vocab_size = kVocabSizes[input->Below(std::size(kVocabSizes))];
  format.rounds = kRounds[input->Below(std::size(kRounds))];
  return format;
}

// Different ids: every `step`-th one from some id on, around the end of the vocabulary.
inline std::vector<uint32_t> TakeList(uint32_t vocab_size, Input* input) {
  const uint32_t n = std::min(vocab_size, input->Below(300));
  const uint32_t first = input->Below(vocab_size);
  uint32_t step = 1 + input->Below(vocab_size);
  while (std::gcd(step, vocab_size) != 1) ++step;
  std::vector<uint32_t> ids;
  for (uint32_t i = 0; i < n; ++i)
    ids.push_back(static_cast<uint32_t>((first + uint64_t{i} * step) % vocab_size));
  return ids;
}

// Buckets that cover a list, at most `limit` of them.
inline std::vector<uint8_t> TakeBuckets(size_t num_ids, size_t limit, Input* input) {
  std::vector<uint8_t> bits;
  while (num_ids > 0) {
    const auto all = static_cast<uint32_t>(std::bit_width(num_ids - 1));
    const uint32_t b = bits.size() + 1 == limit ? all : input->Below(all + 1);
    bits.push_back(static_cast<uint8_t>(b));
    num_ids -= std::min(num_ids, size_t{1} << b);
  }
  return bits;
}

// A complete code: leaves of a tree that grew somehow, for some of the symbols.
inline std::vector<uint8_t> TakeLengths(const compact::FamilyShape& shape, Input* input) {
  const uint32_t n = shape.num_symbols;
  const uint32_t leaves = input->Below(2) == 0 ? n : input->Below(n) + 1;
  uint64_t state = input->Number(2) + 1;
  const auto next = [&state](size_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
  };
  std::vector<uint8_t> tree = {static_cast<uint8_t>(leaves == 1 ? 1 : 0)};
  while (tree.size() < leaves) {
    size_t i = next(tree.size());
    while (tree[i] == shape.width) i = (i + 1) % tree.size();
    tree.push_back(++tree[i]);
  }
  size_t step = 1 + next(n);
  while (std::gcd(step, n) != 1) ++step;
  const size_t first = next(n);
  std::vector<uint8_t> lengths(n, 0);
  for (size_t i = 0; i < tree.size(); ++i) lengths[(first + i * step) % n] = tree[i];
  return lengths;
}

inline ModelContent TakeModelContent(Input* input) {
  ModelContent content;
  content.format = TakeFormat(input);
  content.global_ids = TakeList(content.format.vocab_size, input);
  const uint32_t num_classes = input->Below(4) == 0 ? input->Below(40) + 1 : input->Below(3) + 1;
  for (uint32_t i = 0; i < num_classes; ++i) {
    ModelContent::Class& c = content.classes.emplace_back();
    c.ids = TakeList(content.format.vocab_size, input);
    c.own_bits = TakeBuckets(c.ids.size(), 120, input);
    c.global_bits = TakeBuckets(content.global_ids.size(), 120, input);
    while (c.hazards.size() < c.num_buckets())
      c.hazards.push_back(static_cast<uint8_t>(input->Below(compact::kMaxHazard + 1)));
  }
  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    const compact::FamilyShape shape =
        compact::ShapeOf(static_cast<compact::Family>(f), content.format, num_classes);
    if (!shape.is_used()) continue;
    CodeFamily& family = content.families[f];
    const uint32_t num_codes = input->Below(4) + 1;
    for (uint32_t i = 0; i < num_codes; ++i) family.lengths.push_back(TakeLengths(shape, input));
    const uint32_t stride = input->Below(8) + 1;
    for (uint32_t context = 0; context < shape.num_contexts; ++context)
      family.map.push_back(static_cast<uint8_t>(context / stride % num_codes));
  }
  return content;
}

}  // namespace sparselogits::fuzz
