#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed between inlined functions alone
#endif

#include "sparselogits/loss_kernels.h"

#include "sparselogits/bfloat16.h"
#include "sparselogits/softmax_tile.h"

namespace sparselogits {
namespace {

SPARSELOGITS_ALWAYS_INLINE void WidenLoop(const uint16_t* bits, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = Bfloat16ToFloat(bits[i]);
}

SPARSELOGITS_ALWAYS_INLINE void MultiplyNarrowLoop(const float* values, int64_t n, float factor,
                                                   uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = FloatToBfloat16(values[i] * factor);
}

#define SPARSELOGITS_LOSS_KERNELS(variant, attributes, lanes)                                    \
  attributes TileSum Exponentials##variant(const float* z, int64_t n, float inverse_temperature, \
                                           float* exps) {                                        \
    return SoftmaxTile<lanes>::Exponentials(z, n, inverse_temperature, exps);                    \
  }                                                                                              \
  attributes void Multiply##variant(float* values, int64_t n, float factor) {                    \
    SoftmaxTile<lanes>::Multiply(values, n, factor);                                             \
  }                                                                                              \
  attributes void Tanh##variant(const float* z, int64_t n, float inverse_softcap, float* out) {  \
    SoftmaxTile<lanes>::Tanh(z, n, inverse_softcap, out);                                        \
  }                                                                                              \
  attributes void MultiplySlope##variant(const float* exps, int64_t n, float factor,             \
                                         float* tanhs) {                                         \
    SoftmaxTile<lanes>::MultiplySlope(exps, n, factor, tanhs);                                   \
  }                                                                                              \
  attributes void Widen##variant(const uint16_t* bits, int64_t n, float* out) {                  \
    WidenLoop(bits, n, out);                                                                     \
  }                                                                                              \
  attributes void MultiplyNarrow##variant(const float* values, int64_t n, float factor,          \
                                          uint16_t* out) {                                       \
    MultiplyNarrowLoop(values, n, factor, out);                                                  \
  }                                                                                              \
  constexpr LossKernels k##variant = {#variant,                                                  \
                                      Exponentials##variant,                                     \
                                      Multiply##variant,                                         \
                                      Tanh##variant,                                             \
                                      MultiplySlope##variant,                                    \
                                      Widen##variant,                                            \
                                      MultiplyNarrow##variant};

SPARSELOGITS_LOSS_KERNELS(Lanes4, , 4)  // SSE2, NEON and the like
#if defined(__x86_64__)
SPARSELOGITS_LOSS_KERNELS(Avx2, __attribute__((target("avx2,fma"))), 8)
SPARSELOGITS_LOSS_KERNELS(Avx512, __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw"))), 16)
#endif

}  // namespace

const std::vector<LossKernels>& AvailableLossKernels() {
  static const std::vector<LossKernels> available = [] {
    std::vector<LossKernels> kernels = {kLanes4};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) kernels.push_back(kAvx2);
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
