// A compact block decoded one bit at a time, in the order of formats/v1.md section 12 and with
// nothing of the core's decoder: what the fast one is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "slow_packed_decoder.h"
#include "slow_prefix_code.h"
#include "sparselogits/compact_model.h"

namespace sparselogits::fuzz {

// What section 13 says of a model, made ready for section 12.
class SlowModel {
 public:
  static constexpr size_t kFamilies = 8;
  enum Family { kClass, kEntryNumber, kCountPair, kCount, kGap, kTokenRank, kTokenBucket, kWeight };
  struct Bucket {
    const std::vector<uint32_t>* list;  // null: its entries are ids themselves
    uint64_t first;                     // in the list
    int bits;
    uint32_t hazard;
  };

  explicit SlowModel(const ModelContent& content) : content_(content) {
    for (size_t f = 0; f < kFamilies; ++f)
      for (const auto& lengths : content.families[f].lengths) codes_[f].emplace_back(lengths);
    for (const auto& c : content.classes) {
      std::vector<Bucket>& buckets = buckets_.emplace_back();
      const auto add_list = [&buckets](const auto& list, const auto& bits_of_buckets) {
        uint64_t first = 0;
        for (const int bits : bits_of_buckets) {
          buckets.push_back({&list, first, bits, 0});
          first += uint64_t{1} << bits;
        }
      };
      add_list(c.ids, c.own_bits);
      add_list(content.global_ids, c.global_bits);
      int width = 1;
      while ((uint64_t{content.format.vocab_size} - 1) >> width != 0) ++width;
      buckets.push_back({nullptr, 0, width, 0});
      for (size_t b = 0; b < buckets.size(); ++b) buckets[b].hazard = c.hazards[b];
    }
  }

  uint32_t num_classes() const { return content_.num_classes(); }
  const std::vector<Bucket>& buckets(uint32_t c) const { return buckets_[c]; }
  uint32_t Symbol(Family f, uint32_t context, SlowBits* bits) const {
    if (codes_[f].empty()) return 0;  // one symbol at most: the family is not in the model
    return codes_[f][content_.families[f].map[context]].Take(bits);
  }
  uint32_t Value(Family f, uint32_t context, SlowBits* bits) const {
    const uint32_t symbol = Symbol(f, context, bits);
    if (symbol < 32) return symbol;
    const int b = static_cast<int>(symbol - 32) / 4 + 3;
    return ((4 + (symbol - 32) % 4) << b) + static_cast<uint32_t>(bits->Field(b));
  }

 private:
  const ModelContent& content_;
  std::vector<SlowPrefixCode> codes_[kFamilies];
  std::vector<std::vector<Bucket>> buckets_;
};

class SlowCompactDecoder {
 public:
  SlowCompactDecoder(ByteSpan content, const RecordFormat& format, const SlowModel& model,
                     uint32_t num_positions)
      : content_(content), format_(format), model_(model), n_(num_positions) {
    sound_ = Layout();
    if (!has_layout_) return;
    for (uint32_t stretch = 0; stretch < num_stretches(); ++stretch)
      sound_ = DecodeStretch(stretch) && sound_;
  }

  bool has_layout() const { return has_layout_; }
  // Whether the block is all that section 12 asks for, but for the number of entries.
  bool sound() const { return sound_; }
  // The record of a position: none where it, or one before it in its stretch, must be refused.
  const std::optional<SlowRecord>& record(uint32_t position) const { return records_[position]; }
  uint64_t num_entries() const {
    uint64_t sum = 0;
    for (const auto& record : records_) sum += record ? record->token_ids.size() : 0;
    return sum;
  }
  // The input token of a position, where the record before it, which tells it, is not refused.
  const std::optional<uint32_t>& token(uint32_t position) const { return tokens_[position]; }

 private:
  // The entries of a record in the order of their buckets.
  struct Raw {
    std::vector<uint32_t> ids, buckets, values;
  };

  uint32_t num_stretches() const { return (n_ + 15) / 16; }
  static uint32_t E(uint32_t x) {
    uint32_t e = 0;
    while (x >> e > 1) ++e;
    return 4 * e + static_cast<uint32_t>(4 * uint64_t{x} / (uint64_t{1} << e)) % 4;
  }
  static uint32_t C(uint32_t x) { return x < 8 ? x : std::min(24u, E(x) - 4); }

  bool Layout() {
    if (content_.size() < 12) return false;
    const auto u32 = [this](size_t at) {
      int64_t value = 0;
      for (size_t i = 0; i < 4; ++i) value |= int64_t{content_[at + i]} << (8 * i);
      return value;
    };
    if (content_[0] > 32 || content_[1] != 0 || content_[2] != 0 || content_[3] != 0) return false;
    int width = 1;
    while ((uint64_t{format_.vocab_size} - 1) >> width != 0) ++width;
    const uint64_t directory_bits = (format_.store_tokens ? static_cast<uint64_t>(width) : 0) +
                                    (num_stretches() - uint64_t{1}) * content_[0];
    const uint64_t records_at = 12 + (directory_bits + 7) / 8;
    if (content_.size() < records_at) return false;
    has_layout_ = true;
    records_.resize(n_);
    tokens_.resize(n_);
    SlowBits directory(content_, 12 * 8, records_at * 8);
    bool sound = true;
    if (format_.store_tokens) {
      const auto token = static_cast<uint32_t>(directory.Field(width));
      if (token < format_.vocab_size)
        tokens_[0] = token;
      else
        sound = false;
    }
    starts_.push_back(0);
    for (uint32_t i = 1; i < num_stretches(); ++i)
      starts_.push_back(i * u32(4) + static_cast<int64_t>(directory.Field(content_[0])) - u32(8));
    records_bytes_ = content_.subspan(records_at);
    starts_.push_back(static_cast<int64_t>(records_bytes_.size()) * 8);
    return directory.Field(static_cast<int>(-directory_bits & 7)) == 0 && sound;
  }

  bool DecodeStretch(uint32_t stretch) {
    const int64_t begin = starts_[stretch], end = starts_[stretch + 1];
    if (begin < 0 || begin > end || end > starts_.back()) return false;
    SlowBits bits(records_bytes_, static_cast<uint64_t>(begin), static_cast<uint64_t>(end));
    uint32_t c = model_.num_classes();
    for (uint32_t p = stretch * 16; p < std::min(n_, stretch * 16 + 16); ++p)
      if (!DecodeRecord(p, &c, &bits)) return false;
    const uint64_t left = static_cast<uint64_t>(end) - bits.position();
    if (stretch + 1 < num_stretches()) return left == 0;
    return left < 8 && bits.Field(static_cast<int>(left)) == 0;
  }

  bool DecodeRecord(uint32_t position, uint32_t* c, SlowBits* bits) {
    const bool counts = format_.value_kind == ValueKind::kCounts;
    *c = model_.Symbol(SlowModel::kClass, *c, bits);
    const uint32_t k = model_.Value(SlowModel::kEntryNumber, *c, bits);
    if (k > std::min(format_.vocab_size, counts ? format_.rounds : 65535u)) return false;
    Raw raw;
    if (counts && k > 0 && !TakeCounts(k, bits, &raw.values)) return false;
    if (!TakeIds(*c, k, bits, &raw)) return false;
    if (!counts && !TakeWeights(bits, &raw)) return false;
    std::optional<uint32_t> token;
    const bool has_token = format_.store_tokens && position + 1 < n_;
    if (has_token) {
      token = TakeToken(*c, raw, bits);
      if (!token) return false;
    }
    if (bits->overrun() || std::set(raw.ids.begin(), raw.ids.end()).size() != k) return false;
    std::vector<size_t> order(k);
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(),
              [&raw](size_t a, size_t b) { return raw.ids[a] < raw.ids[b]; });
    SlowRecord& record = records_[position].emplace();
    for (const size_t i : order) {
      record.token_ids.push_back(raw.ids[i]);
      record.values.push_back(raw.values[i]);
    }
    if (has_token) tokens_[position + 1] = token;
    return true;
  }

  bool TakeCounts(uint32_t k, SlowBits* bits, std::vector<uint32_t>* counts) const {
    uint32_t excess = format_.rounds - k;
    uint32_t left = k;
    while (left > 2 && excess > 0) {
      const uint32_t s = model_.Symbol(SlowModel::kCountPair, 25 * C(excess) + C(left), bits);
      const uint32_t pair[2] = {s / 8, s % 8};
      for (uint32_t i = 0; i < 2; ++i) {
        uint32_t more = pair[i];
        if (more > excess) return false;
        if (more == 7)
          more += model_.Value(SlowModel::kCount, 25 * C(excess - 7) + C(left - i), bits);
        if (more > excess) return false;
        counts->push_back(more + 1);
        excess -= more;
      }
      left -= 2;
    }
    if (left == 2 && excess > 0) {
      const uint32_t more = model_.Value(SlowModel::kCount, 25 * C(excess) + C(2), bits);
      if (more > excess) return false;
      counts->push_back(more + 1);
      excess -= more;
    }
    while (counts->size() + 1 < k) counts->push_back(1);
    counts->push_back(excess + 1);
    return true;
  }

  // The id that an entry of a bucket stands for.
  std::optional<uint32_t> TakeEntry(const SlowModel::Bucket& bucket, SlowBits* bits) const {
    const uint64_t entry = bits->Field(bucket.bits);
    if (bucket.list == nullptr)
      return entry < format_.vocab_size ? std::optional(static_cast<uint32_t>(entry))
                                        : std::nullopt;
    if (bucket.first + entry >= bucket.list->size()) return std::nullopt;
    return (*bucket.list)[bucket.first + entry];
  }

  bool TakeIds(uint32_t c, uint32_t k, SlowBits* bits, Raw* raw) const {
    const std::vector<SlowModel::Bucket>& buckets = model_.buckets(c);
    uint32_t next = 0, wide = 0;
    for (uint32_t i = 0; i < k; ++i) {
      const int level = static_cast<int>(E(k - i)) - static_cast<int>(buckets[next].hazard) + 40;
      const uint32_t context = static_cast<uint32_t>(std::clamp(level, 0, 63)) + 64 * wide;
      const uint32_t b = next + model_.Value(SlowModel::kGap, context, bits);
      if (b >= buckets.size()) return false;
      const std::optional<uint32_t> id = TakeEntry(buckets[b], bits);
      if (!id || bits->overrun()) return false;
      raw->ids.push_back(*id);
      raw->buckets.push_back(b);
      wide = buckets[b].bits > 0 ? 1 : 0;
      next = b + 1 - wide;
    }
    return true;
  }

  bool TakeWeights(SlowBits* bits, Raw* raw) const {
    const int raw_bits = format_.weight_dtype == WeightDtype::kFloat32 ? 23 : 7;
    for (const uint32_t b : raw->buckets) {
      const uint32_t high = model_.Symbol(SlowModel::kWeight, b / 32, bits);
      const uint32_t value = high << raw_bits | static_cast<uint32_t>(bits->Field(raw_bits));
      const uint32_t infinite = format_.weight_dtype == WeightDtype::kFloat32   ? 0x7F800000u
                                : format_.weight_dtype == WeightDtype::kFloat16 ? 0x7C00u
                                                                                : 0x7F80u;
      if (value >= infinite) return false;
      raw->values.push_back(value);
    }
    return true;
  }

  std::optional<uint32_t> TakeToken(uint32_t c, const Raw& raw, SlowBits* bits) const {
    const size_t k = raw.ids.size();
    if (k > 0) {
      const uint32_t m = *std::max_element(raw.values.begin(), raw.values.end());
      const uint32_t context = format_.value_kind == ValueKind::kCounts
                                   ? std::min(15u, 16 * (m - 1) / format_.rounds)
                                   : 0;
      const uint32_t r = model_.Value(SlowModel::kTokenRank, context, bits);
      if (r > k) return std::nullopt;
      if (r > 0) {
        std::vector<size_t> order(k);
        std::iota(order.begin(), order.end(), size_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&raw](size_t a, size_t b) { return raw.values[a] > raw.values[b]; });
        return raw.ids[order[r - 1]];
      }
    }
    const uint32_t b = model_.Symbol(SlowModel::kTokenBucket, c, bits);
    if (b >= model_.buckets(c).size()) return std::nullopt;
    return TakeEntry(model_.buckets(c)[b], bits);
  }

  ByteSpan content_, records_bytes_;
  RecordFormat format_;
  const SlowModel& model_;
  uint32_t n_;
  bool has_layout_ = false, sound_ = false;
  std::vector<int64_t> starts_;  // bits of each stretch's start, and the end
  std::vector<std::optional<SlowRecord>> records_;
  std::vector<std::optional<uint32_t>> tokens_;
};

}  // namespace sparselogits::fuzz
