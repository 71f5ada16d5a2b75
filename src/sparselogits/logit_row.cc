#include "sparselogits/logit_row.h"

#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

namespace sparselogits {
namespace {

std::string Number(float value) {
  if (std::isnan(value)) return "nan";  // never "-nan"
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

}  // namespace

const float* LogitRow::Scaled(int64_t start, int64_t size, float factor, float* buffer) const {
  const float* logits = Widened(start, size, buffer);
  if (temperature_ == 1.0f && factor == 1.0f) return logits;
  kernels_.scale(logits, size, temperature_, factor, buffer);
  return buffer;
}

const float* LogitRow::Widened(int64_t start, int64_t size, float* buffer) const {
  if (dtype_ == LogitDtype::kFloat32) return reinterpret_cast<const float*>(logits_) + start;
  const auto* bits = reinterpret_cast<const uint16_t*>(logits_) + start;
  (dtype_ == LogitDtype::kFloat16 ? kernels_.widen_float16 : kernels_.widen_bfloat16)(bits, size,
                                                                                      buffer);
  return buffer;
}

float LogitRow::At(int64_t column) const {
  float buffer;
  return *Widened(column, 1, &buffer);
}

Status LogitRow::Refusal(int64_t row) const {
  const auto name = [row](int64_t column) {
    return "logits[" + std::to_string(row) + ", " + std::to_string(column) + "]";
  };
  int64_t largest = 0;
  for (int64_t column = 0; column < num_columns_; ++column) {
    if (!(At(column) < std::numeric_limits<float>::infinity())) {
      return Status::InvalidArgument(name(column) + " is " + Number(At(column)) +
                                     ": logits must not be NaN or +inf");
    }
    if (At(column) > At(largest)) largest = column;
  }
  if (std::isinf(At(largest))) {
    return Status::InvalidArgument("logits row " + std::to_string(row) +
                                   " is all -inf: there is no token to draw");
  }
  return Status::InvalidArgument(name(largest) + " = " + Number(At(largest)) +
                                 " leaves float32 at temperature " + Number(temperature_) +
                                 " and proposal_temperature " + Number(proposal_temperature_));
}

}  // namespace sparselogits
