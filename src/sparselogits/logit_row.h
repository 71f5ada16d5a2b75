// One row of logits as what the sampler computes with: float32, divided by the temperature.
#pragma once

#include <cstdint>

#include "sparselogits/row_kernels.h"
#include "sparselogits/status.h"

namespace sparselogits {

enum class LogitDtype { kFloat32, kFloat16, kBfloat16 };

inline int64_t BytesOf(LogitDtype dtype) { return dtype == LogitDtype::kFloat32 ? 4 : 2; }

class LogitRow {
 public:
  LogitRow(LogitDtype dtype, int64_t num_columns, float temperature, float proposal_temperature)
      : dtype_(dtype),
        num_columns_(num_columns),
        temperature_(temperature),
        proposal_temperature_(proposal_temperature) {}

  void Point(const void* logits) { logits_ = static_cast<const uint8_t*>(logits); }

  int64_t num_columns() const { return num_columns_; }

  // logits / temperature * factor of some columns: in the row itself where that is all there is to
  // it, else in *buffer, which has room for them.
  const float* Scaled(int64_t start, int64_t size, float factor, float* buffer) const;

  // Why this row, number `row` of its batch, has no distribution to draw from.
  // REQUIRES: a logit is NaN or +infinity, all are -infinity, or the largest scaled one is not
  // finite.
  Status Refusal(int64_t row) const;

 private:
  // The logits themselves, in the row or in *buffer.
  const float* Widened(int64_t start, int64_t size, float* buffer) const;
  float At(int64_t column) const;

  const RowKernels& kernels_ = BestKernels();
  const LogitDtype dtype_;
  const int64_t num_columns_;
  const float temperature_;
  const float proposal_temperature_;
  const uint8_t* logits_ = nullptr;
};

}  // namespace sparselogits
