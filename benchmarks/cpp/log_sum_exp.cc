// log(sum(exp(row))) of float32 rows with the exponential and the vectors of the sampler, and
// nothing else: what a sampler that reads every logit can at best cost. Loaded by
// bench_sampling.py.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "sparselogits/exp_mass.h"
#include "sparselogits/tile_lanes.h"

#pragma GCC diagnostic ignored "-Wpsabi"

namespace sparselogits {
namespace {

template <int kLanes>
using Floats = typename LaneTypes<kLanes>::Floats;

template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE Floats<kLanes> Load(const float* at) {
  Floats<kLanes> values;
  std::memcpy(&values, at, sizeof values);
  return values;
}

template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE Floats<kLanes> Exp(Floats<kLanes> differences) {
  using Words = typename LaneTypes<kLanes>::Words;
  const Floats<kLanes> least = Floats<kLanes>{} + kLeastDifference;
  Floats<kLanes> rounded;
  const Floats<kLanes> d = differences > least ? differences : least;
  const Floats<kLanes> of_r = ExpFraction(d, &rounded) + kExpScale;
  return std::bit_cast<Floats<kLanes>>(std::bit_cast<Words>(of_r) +
                                       (std::bit_cast<Words>(rounded) << 23));
}

template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE float Max(const float* logits, int64_t n) {
  Floats<kLanes> even = Load<kLanes>(logits), odd = even;
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
    const Floats<kLanes> first = Load<kLanes>(logits + i),
                         second = Load<kLanes>(logits + i + kLanes);
    even = first > even ? first : even;
    odd = second > odd ? second : odd;
  }
  even = odd > even ? odd : even;
  float max = even[0];
  for (int lane = 1; lane < kLanes; ++lane) max = even[lane] > max ? even[lane] : max;
  return max;
}

// The sum of e^(logits - max), float32 within a tile and float64 over tiles.
template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE double Sum(const float* logits, int64_t n, float max) {
  double sum = 0;
  for (int64_t tile = 0; tile < n; tile += kTile) {
    Floats<kLanes> even = {}, odd = {};
    for (int64_t i = tile; i < tile + kTile; i += 2 * kLanes) {
      even += Exp<kLanes>(Load<kLanes>(logits + i) - max);
      odd += Exp<kLanes>(Load<kLanes>(logits + i + kLanes) - max);
    }
    even += odd;
    float of_tile = 0;
    for (int lane = 0; lane < kLanes; ++lane) of_tile += even[lane];
    sum += static_cast<double>(of_tile);
  }
  return sum * 0x1p-30;
}

// Two passes, as softmax is usually written: the maximum, then the sum.
template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE void TwoPasses(const float* logits, int64_t rows, int64_t n,
                                          double* out) {
  for (int64_t row = 0; row < rows; ++row, logits += n) {
    const float max = Max<kLanes>(logits, n);
    out[row] = static_cast<double>(max) + std::log(Sum<kLanes>(logits, n, max));
  }
}

// One pass: tiles have maxima of their own, which are brought together at the end.
template <int kLanes>
SPARSELOGITS_ALWAYS_INLINE void OnePass(const float* logits, int64_t rows, int64_t n, double* out) {
  for (int64_t row = 0; row < rows; ++row, logits += n) {
    float max = -HUGE_VALF;
    double sum = 0;
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const float of_tile = Max<kLanes>(logits + tile, kTile);
      const double masses = Sum<kLanes>(logits + tile, kTile, of_tile);
      if (of_tile > max) {
        sum *= std::exp(static_cast<double>(max) - static_cast<double>(of_tile));
        max = of_tile;
      }
      sum += masses * std::exp(static_cast<double>(of_tile) - static_cast<double>(max));
    }
    out[row] = static_cast<double>(max) + std::log(sum);
  }
}

}  // namespace

// The three instruction sets of row_kernels.cc: 4, 8 (AVX2) and 16 (AVX-512) lanes.
#define ENTRY(lanes, attributes)                                                                   \
  extern "C" attributes void log_sum_exp_two_passes_##lanes(const float* x, int64_t rows,          \
                                                            int64_t n, double* out) {              \
    TwoPasses<lanes>(x, rows, n, out);                                                             \
  }                                                                                                \
  extern "C" attributes void log_sum_exp_one_pass_##lanes(const float* x, int64_t rows, int64_t n, \
                                                          double* out) {                           \
    OnePass<lanes>(x, rows, n, out);                                                               \
  }

ENTRY(4, )
#if defined(__x86_64__)
ENTRY(8, __attribute__((target("avx2"))))
ENTRY(16, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))))
#endif

}  // namespace sparselogits
