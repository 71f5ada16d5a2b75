// e^x in fixed point, the same bits on every machine.
//
// Probabilities become integers before they are added up, and integer sums are associative: tiles,
// threads, vector widths and devices cannot change a draw. Only elementwise float32 operations come
// before that, each rounded on its own (docs/decisions/0001-integer-masses.md).
// The torch and Triton paths (python/sparselogits) repeat this file operation by operation.
#pragma once

#include <bit>
#include <cstdint>

#include "sparselogits/limits.h"

#ifdef __FAST_MATH__
#error "the sampler needs IEEE arithmetic: build without -ffast-math"
#endif

#if defined(__GNUC__)
#define SPARSELOGITS_ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define SPARSELOGITS_ALWAYS_INLINE inline
#endif

namespace sparselogits {

inline constexpr int64_t kMaxSampledVocabulary = kMaxVocabSize;

// From -43.5 down every mass is 0; the bound keeps shifts below 64, for -infinity and NaN too.
inline constexpr float kLeastDifference = -43.5f;

SPARSELOGITS_ALWAYS_INLINE float BoundDifference(float difference) {
  return difference > kLeastDifference ? difference : kLeastDifference;
}

// 1.5 * 2^23: adding it rounds to an integer, half even, which then is in the low bits.
inline constexpr float kRounder = 12582912.0f;
inline constexpr float kExpScale = 0x1p30f;

// e^d = 2^k e^r with |r| <= ln(2)/2 (Cody and Waite), and e^r = 1 + r q(r), q a minimax polynomial
// whose error is 3e-9 of e^r. Returns r q(r) * 2^30; *rounded becomes kRounder + k.
//
// Float is float or a vector of them. REQUIRES: kLeastDifference <= d <= 0.
template <typename Float>
SPARSELOGITS_ALWAYS_INLINE Float ExpFraction(Float d, Float* rounded) {
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: k * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  *rounded = d * kLog2E + kRounder;
  const Float k = *rounded - kRounder;
  const Float r = (d - k * kLn2High) - k * kLn2Low;
  Float q = r * (0x1.6a4ce4p-10f * kExpScale) + 0x1.123988p-7f * kExpScale;
  q = q * r + 0x1.5558b0p-5f * kExpScale;
  q = q * r + 0x1.555492p-3f * kExpScale;
  q = q * r + 0x1.fffffcp-2f * kExpScale;
  q = q * r + kExpScale;
  return q * r;
}

// e^d * 2^30 as a float32. REQUIRES: d comes from BoundDifference, d <= 0.
SPARSELOGITS_ALWAYS_INLINE float ScaledExp(float d) {
  float rounded;
  const float of_r = ExpFraction(d, &rounded) + kExpScale;
  // The exponent goes up by k; the bits of kRounder above its lowest 9 are shifted out.
  return std::bit_cast<float>(std::bit_cast<uint32_t>(of_r) +
                              (std::bit_cast<uint32_t>(rounded) << 23));
}

// A row of n logits gives its largest one the mass 2^(61 - ceil(log2 n)), so that a row's masses
// add up to less than 2^62. Returned is that exponent, between 37 and 61.
inline int MassBits(int64_t num_logits) {
  int bits = 61;
  for (int64_t reach = 1; reach < num_logits; reach *= 2) --bits;
  return bits;
}

// e^d * 2^mass_bits, rounded half up. REQUIRES: d comes from BoundDifference, d <= 0.
//
// r q(r) * 2^30 goes to an integer before 1 is added, which saves the rounding of that addition.
SPARSELOGITS_ALWAYS_INLINE int64_t ExpMass(float d, int mass_bits) {
  float rounded;
  const float fraction = ExpFraction(d, &rounded);
  const uint32_t minus_k = std::bit_cast<uint32_t>(kRounder) - std::bit_cast<uint32_t>(rounded);
  const uint32_t mantissa =
      (uint32_t{1} << 30) + static_cast<uint32_t>(static_cast<int32_t>(fraction));
  const uint64_t halves = uint64_t{mantissa} << (mass_bits - 29) >> uint64_t{minus_k};
  return static_cast<int64_t>((halves + 1) >> 1);
}

}  // namespace sparselogits
