#include "sparselogits/compact_costs.h"

#include <algorithm>
#include <cmath>

namespace sparselogits {
namespace {

// -log2 of the mass of each bucket, from the hazards.
std::vector<double> BucketCosts(const std::vector<uint8_t>& hazards) {
  std::vector<double> costs;
  double left = 0;  // log2 of the mass from the bucket on
  for (const uint8_t hazard : hazards) {
    costs.push_back(0.25 * hazard - left);
    left += std::log2(std::max(1 - std::exp2(-0.25 * hazard), 1e-6));
  }
  return costs;
}

}  // namespace

CompactCosts::Zone::Zone(const std::vector<uint8_t>& bits, uint32_t first_bucket, size_t num_ids,
                         int step_bits)
    : first_bucket_(first_bucket), step_bits_(step_bits), starts_{0}, bits_(bits) {
  for (const uint8_t b : bits) starts_.push_back(starts_.back() + (1u << b));
  uint8_t i = 0;
  for (uint32_t rank = 0; rank < num_ids; rank += 1u << step_bits) {
    while (rank >= starts_[i + size_t{1}]) ++i;
    near_.push_back(i);
  }
}

CompactCosts::CompactCosts(const ModelContent& content)
    : stride_((content.num_classes() + 31) / 32 * 32),
      id_bits_(packed::TokenBits(content.format.vocab_size)),
      row_of_(content.format.vocab_size, 0),
      global_ranks_{kNotGlobal} {
  std::vector<uint32_t> ids = {0};  // of each row; the first row's is not in any list
  const auto add_row = [&](uint32_t id, uint32_t global_rank) {
    if (row_of_[id] != 0) return;
    row_of_[id] = static_cast<uint32_t>(ids.size());
    ids.push_back(id);
    global_ranks_.push_back(global_rank);
  };
  for (uint32_t r = 0; r < content.global_ids.size(); ++r) add_row(content.global_ids[r], r);
  for (const auto& c : content.classes)
    for (const uint32_t id : c.ids) add_row(id, kNotGlobal);

  own_ranks_.assign(ids.size() * stride_, kNotListed);
  costs_.assign(ids.size() * stride_, 255);
  for (uint32_t i = 0; i < content.num_classes(); ++i) {
    const auto& c = content.classes[i];
    const auto listed = static_cast<uint32_t>(std::min<size_t>(c.ids.size(), kNotListed));
    for (uint32_t r = 0; r < listed; ++r)
      own_ranks_[row_of_[c.ids[r]] * stride_ + i] = static_cast<uint16_t>(r);
    const auto own = static_cast<uint32_t>(c.own_bits.size());
    zones_.emplace_back(c.own_bits, 0, c.ids.size(), 1);
    zones_.emplace_back(c.global_bits, own, content.global_ids.size(), 4);
    raw_buckets_.push_back(c.num_buckets() - 1);

    const std::vector<double> bucket_costs = BucketCosts(c.hazards);
    for (size_t row = 0; row < ids.size(); ++row) {
      const Place place = row == 0 ? Place{raw_buckets_[i], 0, id_bits_} : Find(i, ids[row]);
      const double cost = (bucket_costs[place.bucket] + place.bits) * kUnitsPerBit;
      costs_[row * stride_ + i] = static_cast<uint8_t>(std::lround(std::clamp(cost, 0.0, 255.0)));
    }
  }
}

}  // namespace sparselogits
