// The loops over logits, compiled once for each instruction set and chosen at run time. Every
// variant gives the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace sparselogits {

struct RowKernels {
  const char* name;

  // Stores the largest of n >= 1 logits. False when one of them is NaN or +infinity.
  bool (*max)(const float* logits, int64_t n, float* max);

  // out[i] = logits[i] / temperature * factor, each operation rounded to float32.
  void (*scale)(const float* logits, int64_t n, float temperature, float factor, float* out);

  // out[i] = the mass of logits[i] - max (exp_mass.h). REQUIRES: no logit is above max; max is
  // finite.
  void (*masses)(const float* logits, int64_t n, float max, int mass_bits, int64_t* out);

  // The sum of what masses() would store.
  int64_t (*mass_sum)(const float* logits, int64_t n, float max, int mass_bits);
};

// The variants that this processor can run, the plain one first and the fastest last.
const std::vector<RowKernels>& AvailableKernels();

inline const RowKernels& BestKernels() { return AvailableKernels().back(); }

}  // namespace sparselogits
