// The loops of a softmax, over a tile that stays in the first-level cache: the exponentials
// relative to the largest logit of the tile, and their multiplication by a factor; the hyperbolic
// tangents of a soft-cap before, and their slope after. Written for vectors of kLanes floats
// (extensions of GCC and Clang), one source for every instruction set.
//
// What is stored is the same bits on every machine; sums depend on the number of lanes.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sparselogits/exp_mass.h"
#include "sparselogits/lane_types.h"
#include "sparselogits/loss_kernels.h"

namespace sparselogits {

// e^d * 2^30 stays a normal number down to here, and is 0 once it is divided by 2^30.
inline constexpr float kLeastExponent = -105.0f;

template <int kLanes>
class SoftmaxTile {
 public:
  // exps[i] = 2^30 e^((z[i] - max) * inverse_temperature). exps may be z.
  // REQUIRES: 1 <= n <= kSoftmaxTile.
  SPARSELOGITS_ALWAYS_INLINE static TileSum Exponentials(const float* z, int64_t n,
                                                         float inverse_temperature, float* exps) {
    const float max = Max(z, n);
    if (max == -HUGE_VALF) return NoMass(z, n, exps);
    Floats sums = {}, differences = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      Store(exps + i, Exp((Load(z + i) - max) * inverse_temperature, &sums, &differences));
    if (i < n) {
      float rest[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        rest[lane] = i + lane < n ? z[i + lane] : -HUGE_VALF;
      Store(rest, Exp((Load(rest) - max) * inverse_temperature, &sums, &differences));
      std::memcpy(exps + i, rest, static_cast<size_t>(n - i) * sizeof(float));
    }
    TileSum result = {max, 0};
    float faults = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      result.sum += static_cast<double>(sums[lane]);
      faults += differences[lane];
    }
    result.sum += static_cast<double>(faults * 0);
    return result;
  }

  SPARSELOGITS_ALWAYS_INLINE static void Multiply(float* values, int64_t n, float factor) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) Store(values + i, Load(values + i) * factor);
    for (; i < n; ++i) values[i] *= factor;
  }

  // out[i] = tanh(z[i] * inverse_softcap), within 3e-7 of its value. out may be z.
  SPARSELOGITS_ALWAYS_INLINE static void Tanh(const float* z, int64_t n, float inverse_softcap,
                                              float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) Store(out + i, Tanh(Load(z + i) * inverse_softcap));
    if (i < n) {
      const auto size = static_cast<size_t>(n - i) * sizeof(float);
      float rest[kLanes] = {};
      std::memcpy(rest, z + i, size);
      Store(rest, Tanh(Load(rest) * inverse_softcap));
      std::memcpy(out + i, rest, size);
    }
  }

  // tanhs[i] = exps[i] * factor * (1 - tanhs[i]^2).
  SPARSELOGITS_ALWAYS_INLINE static void MultiplySlope(const float* exps, int64_t n, float factor,
                                                       float* tanhs) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      const Floats t = Load(tanhs + i);
      Store(tanhs + i, Load(exps + i) * factor * (1.0f - t * t));
    }
    for (; i < n; ++i) tanhs[i] = exps[i] * factor * (1.0f - tanhs[i] * tanhs[i]);
  }

 private:
  using Floats = typename LaneTypes<kLanes>::Floats;
  using Words = typename LaneTypes<kLanes>::Words;

  SPARSELOGITS_ALWAYS_INLINE static Floats Load(const float* at) {
    Floats values;
    std::memcpy(&values, at, sizeof values);
    return values;
  }

  SPARSELOGITS_ALWAYS_INLINE static void Store(float* at, Floats values) {
    std::memcpy(at, &values, sizeof values);
  }

  // NaN is never larger, and so is found by the differences instead.
  SPARSELOGITS_ALWAYS_INLINE static float Max(const float* z, int64_t n) {
    Floats even = Floats{} - HUGE_VALF, odd = even;
    int64_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      const Floats first = Load(z + i), second = Load(z + i + kLanes);
      even = first > even ? first : even;
      odd = second > odd ? second : odd;
    }
    even = odd > even ? odd : even;
    float max = even[0];
    for (int lane = 1; lane < kLanes; ++lane) max = even[lane] > max ? even[lane] : max;
    for (; i < n; ++i) max = z[i] > max ? z[i] : max;
    return max;
  }

  // A tile of a masked part of the vocabulary.
  static TileSum NoMass(const float* z, int64_t n, float* exps) {
    double faults = 0;
    for (int64_t i = 0; i < n; ++i) {
      if (std::isnan(z[i])) faults = z[i];
      exps[i] = 0;
    }
    return {-HUGE_VALF, faults};
  }

  // Adds to the sums; a difference that is not a number makes *differences not one.
  SPARSELOGITS_ALWAYS_INLINE static Floats Exp(Floats d, Floats* sums, Floats* differences) {
    const Floats least = Floats{} + kLeastExponent;
    d = d < least ? least : d;
    *differences += d;
    Floats rounded;
    const Floats of_r = ExpFraction(d, &rounded) + kExpScale;
    const auto scaled =
        std::bit_cast<Floats>(std::bit_cast<Words>(of_r) + (std::bit_cast<Words>(rounded) << 23));
    *sums += scaled;
    return scaled;
  }

  // (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x. Where e^-2|x| is near 1, its difference from
  // 1 is the fraction itself, not what is left of a sum: small x lose no digits.
  SPARSELOGITS_ALWAYS_INLINE static Floats Tanh(Floats x) {
    const Words sign = std::bit_cast<Words>(x) & 0x80000000u;
    Floats d = std::bit_cast<Floats>(std::bit_cast<Words>(x) | 0x80000000u) * 2.0f;
    const Floats least = Floats{} + kLeastDifference;
    d = d < least ? least : d;
    Floats rounded;
    const Floats fraction = ExpFraction(d, &rounded);
    const auto power = std::bit_cast<Floats>(std::bit_cast<Words>(Floats{} + 1.0f) +
                                             (std::bit_cast<Words>(rounded) << 23));
    const Floats below_one = (1.0f - power) * kExpScale - power * fraction;
    const Floats magnitude = below_one / (2.0f * kExpScale - below_one);
    return std::bit_cast<Floats>(std::bit_cast<Words>(magnitude) | sign);
  }
};

}  // namespace sparselogits
