#include "sparselogits/sampled_row.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <string>

#include "sparselogits/exp_mass.h"

namespace sparselogits {
namespace {

std::string Number(float value) {
  if (std::isnan(value)) return "nan";  // never "-nan"
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
  return text;
}

std::string LogitName(int64_t row, int64_t column) {
  return "logits[" + std::to_string(row) + ", " + std::to_string(column) + "]";
}

}  // namespace

SampledRow::SampledRow(int64_t num_columns, float temperature, float proposal_temperature)
    : num_columns_(num_columns),
      temperature_(temperature),
      proposal_temperature_(proposal_temperature),
      mass_bits_(MassBits(num_columns)),
      tile_totals_(static_cast<size_t>((num_columns + kTile - 1) / kTile)) {}

Status SampledRow::Load(const float* logits, int64_t row) {
  logits_ = logits;
  float max;
  if (!kernels_.max(logits, num_columns_, &max)) return BadLogit(row);
  if (!std::isfinite(max)) {
    return Status::InvalidArgument("logits row " + std::to_string(row) +
                                   " is all -inf: there is no token to draw");
  }
  // Both scalings are monotone and correctly rounded: the maximum scales like any other logit.
  target_max_ = max / temperature_;
  if (!std::isfinite(target_max_)) return Overflow(row, max);
  proposal_max_ = target_max_ * proposal_temperature_;
  if (!std::isfinite(proposal_max_)) return Overflow(row, max);

  target_total_ = 0;
  for (int64_t tile = 0; tile < num_tiles(); ++tile) {
    const int64_t start = tile * kTile;
    const int64_t size = std::min(kTile, num_columns_ - start);
    float scaled[kTile];
    int64_t masses[kTile];
    int64_t& tile_total = tile_totals_[static_cast<size_t>(tile)];
    if (has_proposal()) {
      target_total_ += ProposalMasses(start, size, masses);
      tile_total = std::accumulate(masses, masses + size, int64_t{0});
    } else {
      const float* target = Scaled(start, size, 1.0f, scaled);
      tile_total = kernels_.mass_sum(target, size, target_max_, mass_bits_);
    }
  }
  total_ = std::accumulate(tile_totals_.begin(), tile_totals_.end(), int64_t{0});
  return Status::Ok();
}

int64_t SampledRow::TileMasses(int64_t tile, int64_t* out) const {
  const int64_t start = tile * kTile;
  const int64_t size = std::min(kTile, num_columns_ - start);
  if (has_proposal()) {
    ProposalMasses(start, size, out);
  } else {
    float scaled[kTile];
    kernels_.masses(Scaled(start, size, 1.0f, scaled), size, target_max_, mass_bits_, out);
  }
  return size;
}

const float* SampledRow::Scaled(int64_t start, int64_t size, float factor, float* buffer) const {
  if (temperature_ == 1.0f && factor == 1.0f) return logits_ + start;
  kernels_.scale(logits_ + start, size, temperature_, factor, buffer);
  return buffer;
}

// A token that p has must not be lost to the resolution of a sharper q: it keeps one unit of mass,
// and its weight p / q stays exact.
int64_t SampledRow::ProposalMasses(int64_t start, int64_t size, int64_t* out) const {
  float scaled[kTile];
  int64_t target[kTile];
  kernels_.masses(Scaled(start, size, 1.0f, scaled), size, target_max_, mass_bits_, target);
  kernels_.masses(Scaled(start, size, proposal_temperature_, scaled), size, proposal_max_,
                  mass_bits_, out);
  int64_t target_sum = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t least = target[i] > 0 ? 1 : 0;
    out[i] = out[i] > least ? out[i] : least;
    target_sum += target[i];
  }
  return target_sum;
}

double SampledRow::TargetDifference(int64_t token) const {
  const float scaled = logits_[token] / temperature_;
  return static_cast<double>(scaled) - static_cast<double>(target_max_);
}

double SampledRow::ImportanceRatio(int64_t token, int64_t mass) const {
  const double normaliser = std::ldexp(static_cast<double>(target_total_), -mass_bits_);
  const double p = std::exp(TargetDifference(token)) / normaliser;
  const double q = static_cast<double>(mass) / static_cast<double>(total_);
  return p / q;
}

double SampledRow::LogImportanceRatio(int64_t token, int64_t mass) const {
  return TargetDifference(token) - std::log(static_cast<double>(mass));
}

Status SampledRow::BadLogit(int64_t row) const {
  const float* bad = std::find_if_not(logits_, logits_ + num_columns_, [](float x) {
    return x < std::numeric_limits<float>::infinity();
  });
  return Status::InvalidArgument(LogitName(row, bad - logits_) + " is " + Number(*bad) +
                                 ": logits must not be NaN or +inf");
}

Status SampledRow::Overflow(int64_t row, float max) const {
  const float* largest = std::find(logits_, logits_ + num_columns_, max);
  return Status::InvalidArgument(LogitName(row, largest - logits_) + " = " + Number(max) +
                                 " leaves float32 at temperature " + Number(temperature_) +
                                 " and proposal_temperature " + Number(proposal_temperature_));
}

}  // namespace sparselogits
