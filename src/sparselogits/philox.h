// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011): randomness as a pure function of a key and a counter, so
// that a draw depends on which position it is for and on nothing else.
#pragma once

#include <array>
#include <cstdint>

namespace sparselogits {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

inline PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// The uniforms of one position: draw d is the same whatever was asked for before it.
//
// The key is the seed, low word first. The counter words are: position bits 0-31; position bits
// 32-47 above the 16-bit block number; sequence_id low; sequence_id high. Draw d uses half d % 2
// of block d / 2; a half of two words (low, high) gives the top 62 bits of high << 32 | low.
class PositionUniforms {
 public:
  // REQUIRES: position < 2^48.
  PositionUniforms(uint64_t seed, uint64_t sequence_id, uint64_t position)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        counter_{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32) << 16,
                 static_cast<uint32_t>(sequence_id), static_cast<uint32_t>(sequence_id >> 32)} {}

  // Uniform in [0, 2^62). REQUIRES: draw < 2^17.
  uint64_t Draw(uint32_t draw) {
    if (draw / 2 != block_) {
      block_ = draw / 2;
      PhiloxCounter counter = counter_;
      counter[1] |= block_;
      words_ = Philox4x32(counter, key_);
    }
    const uint32_t half = draw % 2 * 2;
    return (uint64_t{words_[half + 1]} << 32 | words_[half]) >> 2;
  }

 private:
  static constexpr uint32_t kNoBlock = 0xFFFFFFFF;

  PhiloxKey key_;
  PhiloxCounter counter_;
  PhiloxCounter words_{};
  uint32_t block_ = kNoBlock;
};

}  // namespace sparselogits
