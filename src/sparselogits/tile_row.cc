#include "sparselogits/tile_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "sparselogits/exp_mass.h"

namespace sparselogits {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Tiles at once: what is widened or scaled stays in the first cache.
constexpr int64_t kTilesAtOnce = 4;

int CeilLog2(int64_t n) { return static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1))); }

}  // namespace

TileRow::TileRow(const LogitRow& row)
    : row_(row),
      num_tiles_((row.num_columns() + kTile - 1) / kTile),
      base_shift_(CeilLog2(num_tiles_)),
      maxima_(static_cast<size_t>(num_tiles_)),
      sums_(static_cast<size_t>(num_tiles_)),
      totals_(static_cast<size_t>(num_tiles_)) {}

Status TileRow::Load(int64_t number) {
  const int64_t whole_tiles = row_.num_columns() / kTile;
  float buffer[kTile * kTilesAtOnce];
  const auto take = [&](const float* logits, int64_t tile, int64_t count) {
    return kernels_.tile_statistics(logits, count, maxima_.data() + tile, sums_.data() + tile);
  };
  bool usable = true;
  for (int64_t tile = 0; tile < whole_tiles; tile += kTilesAtOnce) {
    const int64_t count = std::min(kTilesAtOnce, whole_tiles - tile);
    usable &= take(row_.Scaled(tile * kTile, count * kTile, 1.0f, buffer), tile, count);
  }
  if (whole_tiles < num_tiles_) {
    usable &= take(Filled(whole_tiles * kTile, kTile, buffer), whole_tiles, 1);
  }
  max_ = usable ? *std::max_element(maxima_.begin(), maxima_.end()) : kInfinity;
  if (!std::isfinite(max_)) return row_.Refusal(number);

  total_ = 0;
  for (int64_t tile = 0; tile < num_tiles_; ++tile) {
    const Scale scale = ScaleOf(tile);
    const int64_t sum = sums_[static_cast<size_t>(tile)] * scale.factor;  // below 2^62
    const int64_t total = scale.shift < 63 ? sum >> scale.shift : 0;
    totals_[static_cast<size_t>(tile)] = total;
    total_ += total;
  }
  return Status::Ok();
}

void TileRow::PieceMasses(int64_t tile, int64_t start, Mass* out) const {
  float buffer[kTilePiece];
  kernels_.piece_masses(Filled(tile * kTile + start, kTilePiece, buffer),
                        maxima_[static_cast<size_t>(tile)], out);
}

double TileRow::Probability(int64_t tile, Mass mass) const {
  const auto at = static_cast<size_t>(tile);
  return static_cast<double>(mass) / static_cast<double>(sums_[at]) *
         (static_cast<double>(totals_[at]) / static_cast<double>(total_));
}

TileRow::Scale TileRow::ScaleOf(int64_t tile) const {
  constexpr int kOne = 157;  // the biased exponent of 2^30, which ScaledExp has for e^0
  const float difference = maxima_[static_cast<size_t>(tile)] - max_;
  const auto bits = std::bit_cast<uint32_t>(ScaledExp(BoundDifference(difference)));
  return {static_cast<int64_t>((bits & 0x7FFFFF) | 0x800000),
          base_shift_ + kOne - static_cast<int>(bits >> 23)};
}

const float* TileRow::Filled(int64_t start, int64_t size, float* buffer) const {
  const int64_t there = std::clamp<int64_t>(row_.num_columns() - start, 0, size);
  const float* logits = row_.Scaled(start, there, 1.0f, buffer);
  if (there == size) return logits;
  if (logits != buffer) std::copy_n(logits, there, buffer);
  std::fill(buffer + there, buffer + size, -kInfinity);
  return buffer;
}

}  // namespace sparselogits
