// One row of logits as integer masses of a proposal q, and the importance weights p / q.
//
// Masses are relative to the row's maximum and have 64 bits: a token that p has keeps a mass
// however sharp q is.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/logit_row.h"

namespace sparselogits {

class ProposalRow {
 public:
  using Mass = int64_t;

  ProposalRow(const LogitRow& row, float proposal_temperature);

  // Takes the row that `row` points to. `number` is its number, for messages.
  Status Load(int64_t number);

  // A tile's total is the sum of its masses.
  struct Scale {
    int64_t Within(int64_t offset) const { return offset; }
  };
  Scale ScaleOf(int64_t /*tile*/) const { return {}; }

  int64_t tile_total(int64_t tile) const { return totals_[static_cast<size_t>(tile)]; }
  int64_t total() const { return total_; }  // positive, below 2^62

  // Stores kTilePiece masses of a tile, from its token `start` on; 0 beyond the row's end.
  void PieceMasses(int64_t tile, int64_t start, Mass* out) const;

  // p / q of a token of this mass. REQUIRES: mass > 0.
  double ImportanceRatio(int64_t token, Mass mass) const;

  // log(p / q) up to a constant of the row, which neither overflows nor underflows.
  double LogImportanceRatio(int64_t token, Mass mass) const;

 private:
  float Max(bool* usable) const;  // of logits / temperature
  // Stores q's masses of `size` tokens; returns the sum of p's.
  int64_t BothMasses(int64_t start, int64_t size, Mass* out) const;
  double TargetDifference(int64_t token) const;

  const RowKernels& kernels_ = BestKernels();
  const LogitRow& row_;
  const float proposal_temperature_;
  const int mass_bits_;

  float target_max_ = 0;    // of logits / temperature
  float proposal_max_ = 0;  // of logits / temperature * proposal_temperature
  int64_t total_ = 0;
  int64_t target_total_ = 0;  // the sum of p's masses
  std::vector<int64_t> totals_;
};

}  // namespace sparselogits
