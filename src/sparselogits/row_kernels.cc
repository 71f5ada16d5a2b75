#include "sparselogits/row_kernels.h"

#include <limits>

#include "sparselogits/exp_mass.h"

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

// Calls use(i, mass of logits[i]). The differences are bounded in a loop of their own: in one loop
// the compiler follows the constant bound through the polynomial as a branch, and vectorises
// nothing.
template <typename Use>
SPARSELOGITS_ALWAYS_INLINE void ForEachMass(const float* logits, int64_t n, float max,
                                            int mass_bits, Use use) {
  constexpr int64_t kBlock = 256;
  float differences[kBlock];
  for (int64_t start = 0; start < n; start += kBlock) {
    const int64_t size = n - start < kBlock ? n - start : kBlock;
    for (int64_t i = 0; i < size; ++i) differences[i] = BoundDifference(logits[start + i] - max);
    for (int64_t i = 0; i < size; ++i) use(start + i, ExpMass(differences[i], mass_bits));
  }
}

SPARSELOGITS_ALWAYS_INLINE void MassesLoop(const float* logits, int64_t n, float max, int mass_bits,
                                           int64_t* out) {
  ForEachMass(logits, n, max, mass_bits, [out](int64_t i, int64_t mass) { out[i] = mass; });
}

SPARSELOGITS_ALWAYS_INLINE int64_t MassSumLoop(const float* logits, int64_t n, float max,
                                               int mass_bits) {
  int64_t sum = 0;
  ForEachMass(logits, n, max, mass_bits, [&sum](int64_t, int64_t mass) { sum += mass; });
  return sum;
}

// Wraps the loops in functions of one instruction set, into which they are inlined.
#define SPARSELOGITS_ROW_KERNELS(variant, attributes)                                             \
  attributes bool Max##variant(const float* logits, int64_t n, float* max) {                      \
    return MaxLoop(logits, n, max);                                                               \
  }                                                                                               \
  attributes void Scale##variant(const float* logits, int64_t n, float temperature, float factor, \
                                 float* out) {                                                    \
    ScaleLoop(logits, n, temperature, factor, out);                                               \
  }                                                                                               \
  attributes void Masses##variant(const float* logits, int64_t n, float max, int mass_bits,       \
                                  int64_t* out) {                                                 \
    MassesLoop(logits, n, max, mass_bits, out);                                                   \
  }                                                                                               \
  attributes int64_t MassSum##variant(const float* logits, int64_t n, float max, int mass_bits) { \
    return MassSumLoop(logits, n, max, mass_bits);                                                \
  }                                                                                               \
  constexpr RowKernels k##variant = {#variant, Max##variant, Scale##variant, Masses##variant,     \
                                     MassSum##variant};

SPARSELOGITS_ROW_KERNELS(Plain, )

#if defined(__GNUC__) && defined(__x86_64__)
#define SPARSELOGITS_X86_KERNELS 1
SPARSELOGITS_ROW_KERNELS(Avx2, __attribute__((target("avx2"))))
SPARSELOGITS_ROW_KERNELS(Avx512, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))))
#endif

}  // namespace

const std::vector<RowKernels>& AvailableKernels() {
  static const std::vector<RowKernels> available = [] {
    std::vector<RowKernels> kernels = {kPlain};
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
