// The loops of the losses, compiled once for each instruction set and chosen at run time.
#pragma once

#include <cstdint>
#include <vector>

namespace sparselogits {

// Logits are looked at in tiles of this many, which stay in the first-level cache.
inline constexpr int64_t kSoftmaxTile = 2048;

struct TileSum {
  float max;   // the largest logit
  double sum;  // of 2^30 e^((z - max) / T); NaN where a logit is NaN or the largest +infinity
};

struct LossKernels {
  const char* name;

  // SoftmaxTile::Exponentials and Multiply.
  TileSum (*exponentials)(const float* z, int64_t n, float inverse_temperature, float* exps);
  void (*multiply)(float* values, int64_t n, float factor);
  // SoftmaxTile::Tanh and MultiplySlope.
  void (*tanh)(const float* z, int64_t n, float inverse_softcap, float* out);
  void (*multiply_slope)(const float* exps, int64_t n, float factor, float* tanhs);
  void (*widen)(const uint16_t* bits, int64_t n, float* out);
  // out[i] = values[i] * factor as bfloat16, rounded to nearest even.
  void (*multiply_narrow)(const float* values, int64_t n, float factor, uint16_t* out);
};

// The variants that this processor can run, the fastest last.
const std::vector<LossKernels>& AvailableLossKernels();

}  // namespace sparselogits
