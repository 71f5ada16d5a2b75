#include "sparselogits/compact_costs.h"

#include <algorithm>
#include <cmath>

namespace sparselogits {
namespace {

constexpr uint16_t kNotListed = 0xFFFF;
constexpr uint32_t kNotGlobal = 0xFFFFFFFFu;

std::vector<uint32_t> StartsOf(const std::vector<uint8_t>& bits) {
  std::vector<uint32_t> starts = {0};
  for (const uint8_t b : bits) starts.push_back(starts.back() + (1u << b));
  return starts;
}

// -log2 of the mass of each bucket, from the hazards.
std::vector<uint32_t> BucketCosts(const std::vector<uint8_t>& hazards) {
  std::vector<uint32_t> costs;
  double left = 0;  // log2 of the mass from the bucket on
  for (const uint8_t hazard : hazards) {
    const double share = std::exp2(-0.25 * hazard);
    costs.push_back(static_cast<uint32_t>(
        std::lround(std::clamp((0.25 * hazard - left) * CompactCosts::kUnitsPerBit, 0.0, 1e6))));
    left += std::log2(std::max(1 - share, 1e-6));
  }
  return costs;
}

}  // namespace

CompactCosts::CompactCosts(const ModelContent& content)
    : num_classes_(content.num_classes()),
      stride_((content.num_classes() + 31) / 32 * 32),
      id_bits_(packed::TokenBits(content.format.vocab_size)),
      row_of_(content.format.vocab_size, 0) {
  uint32_t rows = 1;
  global_rank_of_row_.push_back(kNotGlobal);
  const auto add_row = [&](uint32_t id, uint32_t global_rank) {
    if (row_of_[id] != 0) return;
    row_of_[id] = rows++;
    global_rank_of_row_.push_back(global_rank);
  };
  for (uint32_t r = 0; r < content.global_ids.size(); ++r) add_row(content.global_ids[r], r);
  for (const auto& c : content.classes)
    for (const uint32_t id : c.ids) add_row(id, kNotGlobal);

  own_ranks_.assign(rows * stride_, kNotListed);
  for (uint32_t i = 0; i < num_classes_; ++i) {
    const auto& c = content.classes[i];
    const auto listed = static_cast<uint32_t>(std::min<size_t>(c.ids.size(), kNotListed));
    for (uint32_t r = 0; r < listed; ++r)
      own_ranks_[row_of_[c.ids[r]] * stride_ + i] = static_cast<uint16_t>(r);
    const auto own = static_cast<uint32_t>(c.own_bits.size());
    own_.push_back({StartsOf(c.own_bits), c.own_bits, 0});
    global_.push_back({StartsOf(c.global_bits), c.global_bits, own});
    bucket_costs_.push_back(BucketCosts(c.hazards));
  }

  costs_.assign(rows * stride_, 255);
  std::vector<uint32_t> one_of_row(rows, 0);
  for (uint32_t id = 0; id < row_of_.size(); ++id) one_of_row[row_of_[id]] = id;
  for (uint32_t row = 0; row < rows; ++row)
    for (uint32_t i = 0; i < num_classes_; ++i)
      costs_[row * stride_ + i] = static_cast<uint8_t>(std::min<uint32_t>(
          255, row == 0 ? bucket_costs_[i].back() + static_cast<uint32_t>(id_bits_ * kUnitsPerBit)
                        : Find(i, one_of_row[row]).cost));
}

CompactCosts::Place CompactCosts::PlaceIn(const Zone& zone, uint32_t c, uint32_t rank) const {
  const auto after = std::upper_bound(zone.starts.begin(), zone.starts.end(), rank);
  const auto i = static_cast<uint32_t>(after - zone.starts.begin()) - 1;
  const uint32_t bucket = zone.first_bucket + i;
  return {bucket, rank - zone.starts[i], zone.bits[i],
          bucket_costs_[c][bucket] + static_cast<uint32_t>(zone.bits[i] * kUnitsPerBit)};
}

CompactCosts::Place CompactCosts::Find(uint32_t c, uint32_t id) const {
  const uint32_t row = row_of_[id];
  const uint16_t own = row == 0 ? kNotListed : own_ranks_[row * stride_ + c];
  if (own != kNotListed) return PlaceIn(own_[c], c, own);
  if (row != 0 && global_rank_of_row_[row] != kNotGlobal)
    return PlaceIn(global_[c], c, global_rank_of_row_[row]);
  const auto raw = static_cast<uint32_t>(bucket_costs_[c].size()) - 1;
  return {raw, id, id_bits_,
          bucket_costs_[c][raw] + static_cast<uint32_t>(id_bits_ * kUnitsPerBit)};
}

}  // namespace sparselogits
