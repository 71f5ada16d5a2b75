// The sparse distillation loss of rows of logits, and its gradient, in one trip over the memory.
#pragma once

#include <cstdint>
#include <span>

#include "sparselogits/status.h"

namespace sparselogits {

enum class LossDtype { kFloat32, kBfloat16 };

// Rows of logits z against entries (k, w): with W = sum of w and p = softmax(z / T),
//   loss = sum of w (lse(z / T) - z_k / T)        gradient = scale (W p - w)
// With a soft-cap c the z of these formulas is c tanh(z / c) of the logits, and the gradient is
// multiplied by its slope, 1 - tanh(z / c)^2.
struct LossRows {
  const void* logits;  // (num_rows, num_columns), rows without gaps
  void* gradient;      // the same shape and type; may be `logits`; null: not wanted
  LossDtype dtype;
  int64_t num_rows;
  int64_t num_columns;
  std::span<const int64_t> offsets;    // (num_rows + 1), rising, from 0
  std::span<const int64_t> token_ids;  // unique in a row
  std::span<const float> weights;
  const bool*
      keep;       // (num_rows): a row that is not kept has loss 0 and gradient 0, whatever it holds
  float softcap;  // c; 0: none
  float temperature;
  float scale;
};

// Stores num_rows losses. NaN and infinite logits of kept rows propagate as in a dense softmax.
Status SparseLossRows(const LossRows& rows, int num_threads, float* losses);

}  // namespace sparselogits
