// The prefix codes of a codec model decoded one bit at a time, as formats/v1.md section 12.1 has
// them and with nothing of the core's tables.
#pragma once

#include <array>
#include <vector>

#include "sparselogits/bytes.h"

namespace sparselogits::fuzz {

// Bits of a byte span, least significant first. Behind `end` there are none.
class SlowBits {
 public:
  SlowBits(ByteSpan bytes, uint64_t begin, uint64_t end) : bytes_(bytes), at_(begin), end_(end) {}

  uint32_t Bit() {
    if (at_ >= end_) {
      overrun_ = true;
      return 0;
    }
    const uint32_t bit = bytes_[at_ / 8] >> (at_ % 8) & 1;
    ++at_;
    return bit;
  }
  uint64_t Field(int width) {
    uint64_t value = 0;
    for (int i = 0; i < width; ++i) value |= uint64_t{Bit()} << i;
    return value;
  }
  uint64_t position() const { return at_; }
  bool overrun() const { return overrun_; }

 private:
  ByteSpan bytes_;
  uint64_t at_, end_;
  bool overrun_ = false;
};

class SlowPrefixCode {
 public:
  explicit SlowPrefixCode(const std::vector<uint8_t>& lengths) {
    for (size_t length = 1; length < number_.size(); ++length)
      for (uint32_t s = 0; s < lengths.size(); ++s)
        if (lengths[s] == length) {
          ++number_[length];
          symbols_.push_back(s);
        }
  }

  uint32_t Take(SlowBits* bits) const {
    if (symbols_.size() == 1) {
      bits->Bit();
      return symbols_[0];
    }
    uint32_t code = 0, first = 0, index = 0;
    for (size_t length = 1; length < number_.size(); ++length) {
      code = code << 1 | bits->Bit();
      first <<= 1;
      if (code - first < number_[length]) return symbols_[index + code - first];
      index += number_[length];
      first += number_[length];
    }
    return 0;  // cannot be: the lengths are complete
  }

 private:
  std::array<uint32_t, 16> number_{};  // of codes of each length
  std::vector<uint32_t> symbols_;      // by length, then by symbol
};

}  // namespace sparselogits::fuzz
