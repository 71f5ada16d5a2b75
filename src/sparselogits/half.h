// float16 and bfloat16 as bit patterns: widening is exact, narrowing is stochastic and unbiased.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "sparselogits/records.h"

namespace sparselogits {

inline float Float16ToFloat(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1F;
  const uint32_t mantissa = bits & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact
  return sign ? -magnitude : magnitude;
}

inline float WeightFromBits(uint32_t bits, WeightDtype dtype) {
  switch (dtype) {
    case WeightDtype::kFloat16: return Float16ToFloat(bits);
    case WeightDtype::kBfloat16: return std::bit_cast<float>(bits << 16);
    default: return std::bit_cast<float>(bits);
  }
}

// The largest finite weight of the type.
inline float LargestWeight(WeightDtype dtype) {
  switch (dtype) {
    case WeightDtype::kFloat16: return 65504.0f;
    case WeightDtype::kBfloat16: return std::bit_cast<float>(0x7F7F0000u);
    default: return std::bit_cast<float>(0x7F7FFFFFu);
  }
}

// The bit pattern of `weight` in `dtype`: exact where it can be represented, else one of its two
// neighbours, the upper one with probability (weight − lower) / (upper − lower), so that the
// expectation is the weight. `random` is 32 uniform bits.
// REQUIRES: 0 <= weight <= LargestWeight(dtype).
inline uint32_t NarrowWeight(float weight, WeightDtype dtype, uint32_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(weight);
  switch (dtype) {
    case WeightDtype::kBfloat16: return (bits >> 16) + ((bits & 0xFFFF) > (random >> 16) ? 1 : 0);
    case WeightDtype::kFloat16: {
      const bool normal = weight >= 0x1p-14f;
      // Below 2^-14 float16 is a fixed-point number in units of 2^-24.
      const double scaled = normal ? 0 : static_cast<double>(weight) * 0x1p24;
      const uint32_t lower = normal ? (bits >> 13) - (112u << 10) : static_cast<uint32_t>(scaled);
      const double rest = normal ? (bits & 0x1FFF) * 0x1p-13 : scaled - std::floor(scaled);
      return lower + (rest > random * 0x1p-32 ? 1 : 0);
    }
    default: return bits;
  }
}

}  // namespace sparselogits
