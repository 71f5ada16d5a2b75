#include "sparselogits/proposal_row.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "sparselogits/exp_mass.h"

namespace sparselogits {

ProposalRow::ProposalRow(const LogitRow& row, float proposal_temperature)
    : row_(row),
      proposal_temperature_(proposal_temperature),
      mass_bits_(MassBits(row.num_columns())),
      totals_(static_cast<size_t>((row.num_columns() + kTile - 1) / kTile)) {}

Status ProposalRow::Load(int64_t number) {
  bool usable = true;
  target_max_ = Max(&usable);
  // The scaling is monotone and correctly rounded: the maximum scales like any other logit.
  proposal_max_ = target_max_ * proposal_temperature_;
  if (!usable || !std::isfinite(target_max_) || !std::isfinite(proposal_max_)) {
    return row_.Refusal(number);
  }
  target_total_ = 0;
  total_ = 0;
  for (size_t tile = 0; tile < totals_.size(); ++tile) {
    Mass masses[kTile];
    target_total_ += BothMasses(static_cast<int64_t>(tile) * kTile, kTile, masses);
    totals_[tile] = std::accumulate(masses, masses + kTile, int64_t{0});
    total_ += totals_[tile];
  }
  return Status::Ok();
}

void ProposalRow::PieceMasses(int64_t tile, int64_t start, Mass* out) const {
  BothMasses(tile * kTile + start, kTilePiece, out);
}

float ProposalRow::Max(bool* usable) const {
  float max = -std::numeric_limits<float>::infinity();
  float buffer[kTile];
  for (int64_t start = 0; start < row_.num_columns(); start += kTile) {
    const int64_t size = std::min(kTile, row_.num_columns() - start);
    float of_tile;
    *usable &= kernels_.max(row_.Scaled(start, size, 1.0f, buffer), size, &of_tile);
    max = std::max(max, of_tile);
  }
  return max;
}

// A token that p has must not be lost to the resolution of a sharper q: it keeps one unit of mass,
// and its weight p / q stays exact.
int64_t ProposalRow::BothMasses(int64_t start, int64_t size, Mass* out) const {
  const int64_t there = std::clamp<int64_t>(row_.num_columns() - start, 0, size);
  float buffer[kTile];
  Mass target[kTile];
  kernels_.masses(row_.Scaled(start, there, 1.0f, buffer), there, target_max_, mass_bits_, target);
  kernels_.masses(row_.Scaled(start, there, proposal_temperature_, buffer), there, proposal_max_,
                  mass_bits_, out);
  int64_t target_sum = 0;
  for (int64_t i = 0; i < there; ++i) {
    const int64_t least = target[i] > 0 ? 1 : 0;
    out[i] = out[i] > least ? out[i] : least;
    target_sum += target[i];
  }
  std::fill(out + there, out + size, 0);
  return target_sum;
}

double ProposalRow::TargetDifference(int64_t token) const {
  float buffer;
  return static_cast<double>(*row_.Scaled(token, 1, 1.0f, &buffer)) -
         static_cast<double>(target_max_);
}

double ProposalRow::ImportanceRatio(int64_t token, Mass mass) const {
  const double normaliser = std::ldexp(static_cast<double>(target_total_), -mass_bits_);
  const double p = std::exp(TargetDifference(token)) / normaliser;
  const double q = static_cast<double>(mass) / static_cast<double>(total_);
  return p / q;
}

double ProposalRow::LogImportanceRatio(int64_t token, Mass mass) const {
  return TargetDifference(token) - std::log(static_cast<double>(mass));
}

}  // namespace sparselogits
