// The integer mass of a logit: e^(x - max) in fixed point, the same bits on every machine.
//
// Probabilities become integers before they are added up, and integer sums are associative: tiles,
// threads, vector widths and devices cannot change a draw. Only elementwise float32 operations come
// before that, each rounded on its own (docs/decisions/0001-integer-masses.md).
// python/sparselogits/_sampling_torch.py repeats this file operation by operation.
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

// A row of n logits gives its largest one the mass 2^(61 - ceil(log2 n)), so that a row's masses
// add up to less than 2^62. Returned is that exponent, between 37 and 61.
inline int MassBits(int64_t num_logits) {
  int bits = 61;
  for (int64_t reach = 1; reach < num_logits; reach *= 2) --bits;
  return bits;
}

// From -43.5 down every mass is 0; the bound keeps ExpMass's shift below 64, for -infinity too.
SPARSELOGITS_ALWAYS_INLINE float BoundDifference(float difference) {
  constexpr float kFloor = -43.5f;
  return difference > kFloor ? difference : kFloor;
}

// e^d * 2^mass_bits, rounded half up. REQUIRES: d <= 0; d comes from BoundDifference.
//
// Cody-Waite reduction e^d = 2^k e^r with |r| <= ln(2)/2, then e^r = 1 + r q(r), q a minimax
// polynomial whose error is 3e-9 of e^r; r q(r) * 2^30 goes to an integer before 1 is added, which
// saves the rounding of that addition.
SPARSELOGITS_ALWAYS_INLINE int64_t ExpMass(float d, int mass_bits) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, half even
  constexpr float kLog2E = 0x1.715476p+0f;
  constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: k * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  constexpr float kScale = 0x1p30f;

  const float rounded = d * kLog2E + kRounder;
  const float k = rounded - kRounder;
  const uint32_t minus_k = std::bit_cast<uint32_t>(kRounder) - std::bit_cast<uint32_t>(rounded);
  const float r = (d - k * kLn2High) - k * kLn2Low;
  float q = 0x1.6a4ce4p-10f * kScale;
  q = q * r + 0x1.123988p-7f * kScale;
  q = q * r + 0x1.5558b0p-5f * kScale;
  q = q * r + 0x1.555492p-3f * kScale;
  q = q * r + 0x1.fffffcp-2f * kScale;
  q = q * r + kScale;
  const uint32_t mantissa =
      (uint32_t{1} << 30) + static_cast<uint32_t>(static_cast<int32_t>(q * r));
  const uint64_t halves = uint64_t{mantissa} << (mass_bits - 29) >> uint64_t{minus_k};
  return static_cast<int64_t>((halves + 1) >> 1);
}

}  // namespace sparselogits
