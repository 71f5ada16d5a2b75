// Random access to the bits of a byte span, least significant bit first (formats/v1.md section 2).
#pragma once

#include <cstdint>

#include "sparselogits/endian.h"

namespace sparselogits {

// How many bits PeekBits returns for certain, at any bit position.
inline constexpr int kPeekBits = 57;

// At least kPeekBits bits from `bit` on, the first one in bit 0; what is above them is undefined.
// REQUIRES: bit / 8 + 8 bytes from `base` on are readable.
inline uint64_t PeekBits(const uint8_t* base, uint64_t bit) {
  return Load64(base + (bit >> 3)) >> (bit & 7);
}

inline uint64_t LowBits(uint64_t word, int width) { return word & ((uint64_t{1} << width) - 1); }

}  // namespace sparselogits
