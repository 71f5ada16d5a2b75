#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions alone
#endif

#include "sparselogits/row_kernels.h"

#include <limits>

#include "sparselogits/bfloat16.h"
#include "sparselogits/exp_mass.h"
#include "sparselogits/half.h"
#include "sparselogits/tile_lanes.h"

namespace sparselogits {
namespace {

SPARSELOGITS_ALWAYS_INLINE bool MaxLoop(const float* logits, int64_t n, float* max) {
  // Independent lanes: a float reduction in one variable would not be vectorised.
  constexpr int kLanes = 32;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float best[kLanes];
  uint32_t refused[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    best[lane] = -kInfinity;
    refused[lane] = 0;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float x = logits[i + lane];
      best[lane] = x > best[lane] ? x : best[lane];
      refused[lane] |= x < kInfinity ? 0u : 1u;  // false for NaN too
    }
  }
  for (int lane = 0; i < n; ++i, ++lane) {
    const float x = logits[i];
    best[lane] = x > best[lane] ? x : best[lane];
    refused[lane] |= x < kInfinity ? 0u : 1u;
  }
  *max = -kInfinity;
  uint32_t any_refused = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    *max = best[lane] > *max ? best[lane] : *max;
    any_refused |= refused[lane];
  }
  return any_refused == 0;
}

SPARSELOGITS_ALWAYS_INLINE void ScaleLoop(const float* logits, int64_t n, float temperature,
                                          float factor, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = logits[i] / temperature * factor;
}

// The differences are bounded in a loop of their own: in one loop the compiler follows the constant
// bound through the polynomial as a branch, and vectorises nothing.
SPARSELOGITS_ALWAYS_INLINE void MassesLoop(const float* logits, int64_t n, float max, int mass_bits,
                                           int64_t* out) {
  float differences[kTile];
  for (int64_t start = 0; start < n; start += kTile) {
    const int64_t size = n - start < kTile ? n - start : kTile;
    for (int64_t i = 0; i < size; ++i) differences[i] = BoundDifference(logits[start + i] - max);
    for (int64_t i = 0; i < size; ++i) out[start + i] = ExpMass(differences[i], mass_bits);
  }
}

SPARSELOGITS_ALWAYS_INLINE void WidenBfloat16Loop(const uint16_t* bits, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = Bfloat16ToFloat(bits[i]);
}

// The scalar twin of TileLanes.
class TileScalars {
 public:
  static bool Statistics(const float* logits, int64_t num_tiles, float* maxima, int64_t* sums) {
    for (int64_t tile = 0; tile < num_tiles; ++tile, logits += kTile) {
      if (!MaxLoop(logits, kTile, &maxima[tile])) return false;
      sums[tile] = 0;
      for (int64_t i = 0; i < kTile; ++i) sums[tile] += MassOf(logits[i] - maxima[tile]);
    }
    return true;
  }

  static void WidenFloat16(const uint16_t* bits, int64_t n, float* out) {
    for (int64_t i = 0; i < n; ++i) out[i] = Float16ToFloat(bits[i]);
  }

  static void PieceMasses(const float* logits, float max, uint32_t* out) {
    for (int64_t i = 0; i < kTilePiece; ++i) out[i] = MassOf(logits[i] - max);
  }

 private:
  static uint32_t MassOf(float difference) {
    return static_cast<uint32_t>(ScaledExp(BoundDifference(difference)) + 0.5f);
  }
};

// Wraps the loops in functions of one instruction set, into which they are inlined.
#define SPARSELOGITS_ROW_KERNELS(variant, attributes, Tile)                                       \
  attributes bool TileStatistics##variant(const float* logits, int64_t num_tiles, float* maxima,  \
                                          int64_t* sums) {                                        \
    return Tile::Statistics(logits, num_tiles, maxima, sums);                                     \
  }                                                                                               \
  attributes void PieceMasses##variant(const float* logits, float max, uint32_t* out) {           \
    Tile::PieceMasses(logits, max, out);                                                          \
  }                                                                                               \
  attributes void Scale##variant(const float* logits, int64_t n, float temperature, float factor, \
                                 float* out) {                                                    \
    ScaleLoop(logits, n, temperature, factor, out);                                               \
  }                                                                                               \
  attributes void WidenFloat16##variant(const uint16_t* bits, int64_t n, float* out) {            \
    Tile::WidenFloat16(bits, n, out);                                                             \
  }                                                                                               \
  attributes void WidenBfloat16##variant(const uint16_t* bits, int64_t n, float* out) {           \
    WidenBfloat16Loop(bits, n, out);                                                              \
  }                                                                                               \
  attributes bool Max##variant(const float* logits, int64_t n, float* max) {                      \
    return MaxLoop(logits, n, max);                                                               \
  }                                                                                               \
  attributes void Masses##variant(const float* logits, int64_t n, float max, int mass_bits,       \
                                  int64_t* out) {                                                 \
    MassesLoop(logits, n, max, mass_bits, out);                                                   \
  }                                                                                               \
  constexpr RowKernels k##variant = {                                                             \
      #variant,       TileStatistics##variant, PieceMasses##variant,                              \
      Scale##variant, WidenFloat16##variant,   WidenBfloat16##variant,                            \
      Max##variant,   Masses##variant};

SPARSELOGITS_ROW_KERNELS(Plain, , TileScalars)

#if defined(__GNUC__)
SPARSELOGITS_ROW_KERNELS(Lanes4, , TileLanes<4>)  // SSE2, NEON and the like
#if defined(__x86_64__)
#define SPARSELOGITS_X86_KERNELS 1
SPARSELOGITS_ROW_KERNELS(Avx2, __attribute__((target("avx2"))), TileLanes<8>)
SPARSELOGITS_ROW_KERNELS(Avx512, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))),
                         TileLanes<16>)
#endif
#endif

}  // namespace

const std::vector<RowKernels>& AvailableKernels() {
  static const std::vector<RowKernels> available = [] {
    std::vector<RowKernels> kernels = {kPlain};
#if defined(__GNUC__)
    kernels.push_back(kLanes4);
#endif
#ifdef SPARSELOGITS_X86_KERNELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) kernels.push_back(kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
      kernels.push_back(kAvx512);
    }
#endif
    return kernels;
  }();
  return available;
}

}  // namespace sparselogits
