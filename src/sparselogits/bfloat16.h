// bfloat16 as bit patterns, for loops that the compiler turns into vector instructions.
#pragma once

#include <bit>
#include <cstdint>

#include "sparselogits/exp_mass.h"

namespace sparselogits {

SPARSELOGITS_ALWAYS_INLINE float Bfloat16ToFloat(uint16_t bits) {
  return std::bit_cast<float>(uint32_t{bits} << 16);
}

// Rounds to nearest even; a NaN stays one.
SPARSELOGITS_ALWAYS_INLINE uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
}

}  // namespace sparselogits
