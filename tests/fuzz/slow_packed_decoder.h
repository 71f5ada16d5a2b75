// A packed block decoded one bit at a time, in the order of formats/v1.md section 5 and with
// nothing of the core's decoder: what the fast one is compared with.
#pragma once

#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "sparselogits/bytes.h"
#include "sparselogits/records.h"

namespace sparselogits::fuzz {

struct SlowRecord {
  std::vector<uint32_t> token_ids;
  std::vector<uint32_t> values;  // counts, or the bit patterns of weights
};

class SlowPackedDecoder {
 public:
  SlowPackedDecoder(ByteSpan content, const RecordFormat& format, uint32_t num_positions)
      : content_(content), format_(format), n_(num_positions) {
    sound_ = Layout();
    if (!sound_) return;
    for (uint32_t stretch = 0; stretch < num_stretches(); ++stretch) DecodeStretch(stretch);
    DecodeTokens();
  }

  // Whether the header, the directory and the tokens fit in the content.
  bool has_layout() const { return has_layout_; }
  // Whether the block is all that section 5 asks for.
  bool sound() const { return sound_; }
  // The record of a position: none where it, or one before it in its stretch, must be refused.
  const std::optional<SlowRecord>& record(uint32_t position) const { return records_[position]; }
  uint64_t num_entries() const {
    uint64_t sum = 0;
    for (const auto& record : records_) sum += record ? record->token_ids.size() : 0;
    return sum;
  }
  // Tokens up to the first one that must be refused.
  const std::vector<uint32_t>& tokens() const { return tokens_; }

 private:
  using Bit = uint64_t;

  uint32_t num_stretches() const { return (n_ + 63) / 64; }
  bool BitAt(Bit bit) const { return (content_[bit / 8] >> (bit % 8) & 1) != 0; }

  bool Layout() {
    if (content_.size() < 4) return false;
    low_bits_ = content_[0];
    const uint8_t flags = content_[1];
    if (low_bits_ > 24 || flags > 3 || content_[2] != 0 || content_[3] != 0) return false;
    has_empty_ = (flags & 1) != 0;
    const size_t width = (flags & 2) != 0 ? 4 : 2;
    token_bits_ = 1;
    while (token_bits_ < 32 && (uint64_t{format_.vocab_size} - 1) >> token_bits_ != 0)
      ++token_bits_;
    const size_t directory = 4;
    tokens_at_ = directory + (num_stretches() - 1) * width;
    const size_t token_bytes = format_.store_tokens ? (uint64_t{n_} * token_bits_ + 7) / 8 : 0;
    const size_t records_at = tokens_at_ + token_bytes;
    if (content_.size() < records_at) return false;
    has_layout_ = true;
    records_.resize(n_);
    starts_.push_back(0);
    for (uint32_t i = 0; i + 1 < num_stretches(); ++i) {
      uint64_t start = 0;
      for (size_t byte = 0; byte < width; ++byte)
        start |= uint64_t{content_[directory + i * width + byte]} << (8 * byte);
      starts_.push_back(start);
    }
    starts_.push_back(content_.size() - records_at);
    records_at_ = records_at;
    return true;
  }

  void DecodeStretch(uint32_t stretch) {
    const uint64_t length = content_.size() - records_at_;
    const uint64_t begin = starts_[stretch];
    const uint64_t end = starts_[stretch + 1];
    if (begin >= end || end > length) {
      sound_ = false;
      return;
    }
    at_ = 8 * (records_at_ + begin);
    end_ = 8 * (records_at_ + end);
    for (uint32_t p = 64 * stretch; p < n_ && p < 64 * (stretch + 1); ++p) {
      SlowRecord record;
      if (!TakeRecord(&record)) {
        sound_ = false;
        return;
      }
      records_[p] = std::move(record);
    }
    if (end_ - at_ >= 8) sound_ = false;
    for (; at_ < end_; ++at_) sound_ = sound_ && !BitAt(at_);
  }

  bool Take(int width, uint64_t* value) {
    *value = 0;
    for (int i = 0; i < width; ++i) {
      if (at_ >= end_) return false;
      *value |= uint64_t{BitAt(at_++)} << i;
    }
    return true;
  }

  bool TakeGamma(uint64_t* value) {
    int zeros = 0;
    for (uint64_t bit = 0;; ++zeros) {
      if (zeros > 15 || !Take(1, &bit)) return false;
      if (bit != 0) break;
    }
    uint64_t low = 0;
    if (!Take(zeros, &low)) return false;
    *value = (uint64_t{1} << zeros) | low;
    return true;
  }

  bool TakeRecord(SlowRecord* record) {
    uint64_t value = 0;
    if (has_empty_) {
      if (!Take(1, &value)) return false;
      if (value == 0) return true;
    }
    uint64_t k = 0;
    if (format_.value_kind == ValueKind::kCounts) {
      for (uint64_t sum = 0; sum < format_.rounds; ++k) {
        if (!TakeGamma(&value)) return false;
        sum += value;
        if (sum > format_.rounds) return false;
        record->values.push_back(static_cast<uint32_t>(value));
      }
    } else {
      if (!TakeGamma(&k) || k > 65535 || k > format_.vocab_size) return false;
    }
    std::vector<uint64_t> highs;
    for (uint64_t bit = 0; highs.size() < k; ++bit) {
      if (!Take(1, &value)) return false;
      if (value != 0) highs.push_back(bit - highs.size());
    }
    for (const uint64_t high : highs) {
      if (!Take(low_bits_, &value)) return false;
      const uint64_t id = (high << low_bits_) | value;
      if (id >= format_.vocab_size) return false;
      if (!record->token_ids.empty() && id <= record->token_ids.back()) return false;
      record->token_ids.push_back(static_cast<uint32_t>(id));
    }
    if (format_.value_kind == ValueKind::kWeights) {
      for (uint64_t i = 0; i < k; ++i) {
        if (!Take(format_.weight_dtype == WeightDtype::kFloat32 ? 32 : 16, &value)) return false;
        if (!IsWeight(value)) return false;
        record->values.push_back(static_cast<uint32_t>(value));
      }
    }
    return true;
  }

  // Finite and without a sign: by the bits, since each of the types has its exponent under the
  // sign.
  bool IsWeight(uint64_t bits) const {
    switch (format_.weight_dtype) {
      case WeightDtype::kFloat16: return bits < 0x7C00;
      case WeightDtype::kBfloat16: return bits < 0x7F80;
      default: return bits < 0x7F800000;
    }
  }

  void DecodeTokens() {
    if (!format_.store_tokens) return;
    Bit bit = 8 * tokens_at_;
    for (uint32_t p = 0; p < n_; ++p) {
      uint64_t token = 0;
      for (int i = 0; i < token_bits_; ++i) token |= uint64_t{BitAt(bit++)} << i;
      if (token >= format_.vocab_size) {
        sound_ = false;
        return;
      }
      tokens_.push_back(static_cast<uint32_t>(token));
    }
    for (; bit < 8 * records_at_; ++bit) sound_ = sound_ && !BitAt(bit);
  }

  ByteSpan content_;
  RecordFormat format_;
  uint32_t n_;
  int low_bits_ = 0, token_bits_ = 0;
  bool has_empty_ = false, has_layout_ = false, sound_ = false;
  size_t tokens_at_ = 0, records_at_ = 0;
  Bit at_ = 0, end_ = 0;
  std::vector<uint64_t> starts_;  // of the stretches, and the end of the last one
  std::vector<std::optional<SlowRecord>> records_;
  std::vector<uint32_t> tokens_;
};

}  // namespace sparselogits::fuzz
