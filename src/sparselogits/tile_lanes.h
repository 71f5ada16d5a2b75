// Tile statistics, masses and float16 in vectors of kLanes floats (extensions of GCC and Clang):
// one source for every instruction set, inlined into functions that are compiled for it.
#pragma once

#if defined(__GNUC__)

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sparselogits/exp_mass.h"
#include "sparselogits/half.h"
#include "sparselogits/lane_types.h"
#include "sparselogits/row_kernels.h"

namespace sparselogits {

template <int kLanes>
class TileLanes {
 public:
  SPARSELOGITS_ALWAYS_INLINE static bool Statistics(const float* logits, int64_t num_tiles,
                                                    float* maxima, int64_t* sums) {
    // Sums that are NaN as soon as a logit is NaN or +infinity, and never else.
    Floats differences = {};
    float masked = 0;
    for (int64_t tile = 0; tile < num_tiles; ++tile, logits += kTile) {
      const float max = Max(logits);
      maxima[tile] = max;
      sums[tile] = 0;
      if (max == -HUGE_VALF) {  // no mass, and its differences are NaN without a fault
        for (int64_t i = 0; i < kTile; ++i) masked += logits[i];
        continue;
      }
      // Two masses of 2^30 at most fit an unsigned lane: sums become wide after every second one.
      Wide even = {}, odd = {};
      for (int64_t i = 0; i < kTile; i += 2 * kLanes) {
        const Floats first = Load(logits + i) - max;
        const Floats second = Load(logits + i + kLanes) - max;
        differences += first;
        differences += second;
        const auto pair = std::bit_cast<Wide>(Masses(first) + Masses(second));
        even += pair & 0xFFFFFFFF;
        odd += pair >> 32;
      }
      even += odd;
      for (int lane = 0; lane < kLanes / 2; ++lane) sums[tile] += static_cast<int64_t>(even[lane]);
    }
    for (int lane = 0; lane < kLanes; ++lane) masked += differences[lane];
    return !std::isnan(masked);
  }

  SPARSELOGITS_ALWAYS_INLINE static void PieceMasses(const float* logits, float max,
                                                     uint32_t* out) {
    for (int64_t i = 0; i < kTilePiece; i += kLanes) {
      const Words masses = Masses(Load(logits + i) - max);
      std::memcpy(out + i, &masses, sizeof masses);
    }
  }

  // As Float16ToFloat, without its branches.
  SPARSELOGITS_ALWAYS_INLINE static void WidenFloat16(const uint16_t* bits, int64_t n, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Halves halves;
      std::memcpy(&halves, bits + i, sizeof halves);
      const Words words = __builtin_convertvector(halves, Words);
      const Words magnitude = words & 0x7FFF;
      const Floats whole = __builtin_convertvector(std::bit_cast<Integers>(magnitude), Floats);
      const auto subnormal = std::bit_cast<Words>(whole * 0x1p-24f);
      const Words rebias = magnitude < 0x7C00 ? Words{} + (112u << 23) : Words{} + (224u << 23);
      const Words normal = (magnitude << 13) + rebias;
      const Words widened = (magnitude < 0x400 ? subnormal : normal) | (words & 0x8000) << 16;
      std::memcpy(out + i, &widened, sizeof widened);
    }
    for (; i < n; ++i) out[i] = Float16ToFloat(bits[i]);
  }

 private:
  using Floats = typename LaneTypes<kLanes>::Floats;
  using Integers = typename LaneTypes<kLanes>::Integers;
  using Words = typename LaneTypes<kLanes>::Words;
  using Wide = typename LaneTypes<kLanes>::Wide;
  using Halves = typename LaneTypes<kLanes>::Halves;
  static_assert(kTile % (2 * kLanes) == 0);

  SPARSELOGITS_ALWAYS_INLINE static Floats Load(const float* at) {
    Floats values;
    std::memcpy(&values, at, sizeof values);
    return values;
  }

  SPARSELOGITS_ALWAYS_INLINE static float Max(const float* tile) {
    Floats even = Load(tile), odd = Load(tile + kLanes);
    for (int64_t i = 2 * kLanes; i < kTile; i += 2 * kLanes) {
      const Floats first = Load(tile + i), second = Load(tile + i + kLanes);
      even = first > even ? first : even;
      odd = second > odd ? second : odd;
    }
    even = odd > even ? odd : even;
    float max = even[0];
    for (int lane = 1; lane < kLanes; ++lane) max = even[lane] > max ? even[lane] : max;
    return max;
  }

  // As TileScalars::MassOf of row_kernels.cc, lane by lane.
  SPARSELOGITS_ALWAYS_INLINE static Words Masses(Floats differences) {
    const Floats least = Floats{} + kLeastDifference;
    Floats rounded;
    const Floats d = differences > least ? differences : least;
    const Floats of_r = ExpFraction(d, &rounded) + kExpScale;
    const auto scaled =
        std::bit_cast<Floats>(std::bit_cast<Words>(of_r) + (std::bit_cast<Words>(rounded) << 23));
    return std::bit_cast<Words>(__builtin_convertvector(scaled + 0.5f, Integers));
  }
};

}  // namespace sparselogits

#endif
