// One row of logits as integer masses for draws from p itself, in one pass: tile by tile.
//
// A token's mass is relative to the largest logit of its tile, a tile's total to the largest of the
// row: the row is read once, sums are of 32-bit integers, and only tiles that are hit are looked at
// again (docs/decisions/0009-masses-relative-to-a-tile.md).
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/logit_row.h"

namespace sparselogits {

class TileRow {
 public:
  using Mass = uint32_t;

  explicit TileRow(const LogitRow& row);

  // Takes the row that `row` points to. `number` is its number, for messages.
  Status Load(int64_t number);

  // A tile's total is (the sum of its masses * factor) >> shift, with e^(tile's maximum - row's
  // maximum) as the factor.
  struct Scale {
    int64_t factor;  // below 2^24
    int shift;

    // Where a point that lies `offset` into a total falls in the running sum of the masses.
    // REQUIRES: 0 <= offset < the total.
    int64_t Within(int64_t offset) const { return (offset << shift) / factor; }
  };
  Scale ScaleOf(int64_t tile) const;

  int64_t tile_total(int64_t tile) const { return totals_[static_cast<size_t>(tile)]; }
  int64_t total() const { return total_; }  // positive, below 2^62

  // Stores kTilePiece masses of a tile, from its token `start` on; 0 beyond the row's end.
  void PieceMasses(int64_t tile, int64_t start, Mass* out) const;

  // The probability with which a token of this mass is drawn from its tile.
  double Probability(int64_t tile, Mass mass) const;

 private:
  // `size` scaled logits from `start` on, filled up with -infinity beyond the row's end.
  const float* Filled(int64_t start, int64_t size, float* buffer) const;

  const RowKernels& kernels_ = BestKernels();
  const LogitRow& row_;
  const int64_t num_tiles_;
  const int base_shift_;  // keeps the sum of the totals below 2^62

  float max_ = 0;
  int64_t total_ = 0;
  std::vector<float> maxima_;
  std::vector<int64_t> sums_;
  std::vector<int64_t> totals_;
};

}  // namespace sparselogits
