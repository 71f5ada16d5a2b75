// One row of logits as integer masses, looked at tile by tile.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/row_kernels.h"
#include "sparselogits/status.h"

namespace sparselogits {

// The masses that draws come from (of q) and, when q is not p, those of p.
//
// One pass keeps a sum per tile; afterwards only tiles that are hit are evaluated again. Working
// memory is reused from row to row.
class SampledRow {
 public:
  static constexpr int64_t kTile = 256;

  SampledRow(int64_t num_columns, float temperature, float proposal_temperature);

  // Takes the next row and sums its masses. `row` is its number, for messages.
  Status Load(const float* logits, int64_t row);

  int64_t num_tiles() const { return static_cast<int64_t>(tile_totals_.size()); }
  int64_t tile_total(int64_t tile) const { return tile_totals_[static_cast<size_t>(tile)]; }
  int64_t total() const { return total_; }  // positive, below 2^62

  // Stores the masses of a tile in out[kTile]; returns how many there are.
  int64_t TileMasses(int64_t tile, int64_t* out) const;

  bool has_proposal() const { return proposal_temperature_ != 1.0f; }

  // p / q of a token of this mass. REQUIRES: has_proposal(), mass > 0.
  double ImportanceRatio(int64_t token, int64_t mass) const;

  // log(p / q) up to a constant of the row, which neither overflows nor underflows.
  double LogImportanceRatio(int64_t token, int64_t mass) const;

 private:
  const float* Scaled(int64_t start, int64_t size, float factor, float* buffer) const;
  // Stores q's masses of some tokens; returns the sum of p's.
  int64_t ProposalMasses(int64_t start, int64_t size, int64_t* out) const;
  double TargetDifference(int64_t token) const;
  Status BadLogit(int64_t row) const;
  Status Overflow(int64_t row, float max) const;

  const RowKernels& kernels_ = BestKernels();
  const int64_t num_columns_;
  const float temperature_;
  const float proposal_temperature_;
  const int mass_bits_;

  const float* logits_ = nullptr;
  float target_max_ = 0;    // of logits / temperature
  float proposal_max_ = 0;  // of logits / temperature * proposal_temperature
  int64_t total_ = 0;
  int64_t target_total_ = 0;  // the sum of p's masses; 0 without a proposal
  std::vector<int64_t> tile_totals_;
};

}  // namespace sparselogits
