#include "sparselogits/loss_rows.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "sparselogits/bfloat16.h"
#include "sparselogits/loss_kernels.h"

namespace sparselogits {
namespace {

// What one thread needs for one row after the other. Between the two trips over a row its values
// lie in the gradient, or in scratch memory where they would be rounded twice: the exponentials, or
// under a soft-cap the hyperbolic tangents, whose exponentials are cheaper made twice than stored.
class RowWorker {
 public:
  explicit RowWorker(const LossRows& rows)
      : rows_(rows),
        kernels_(AvailableLossKernels().back()),
        capped_(rows.softcap != 0),
        inverse_temperature_((capped_ ? rows.softcap : 1.0f) / rows.temperature),
        tiles_(static_cast<size_t>((rows.num_columns + kSoftmaxTile - 1) / kSoftmaxTile)),
        exps_(capped_ ? kSoftmaxTile : 0) {
    if (rows.gradient == nullptr)
      scratch_.resize(kSoftmaxTile);
    else if (rows.dtype == LossDtype::kBfloat16)
      scratch_.resize(static_cast<size_t>(rows.num_columns));
  }

  // The loss of a row; writes its gradient.
  float Run(int64_t row) {
    const int64_t size = rows_.dtype == LossDtype::kFloat32 ? 4 : 2;
    const int64_t start = row * rows_.num_columns * size;
    const auto* const logits = static_cast<const uint8_t*>(rows_.logits) + start;
    auto* const gradient =
        rows_.gradient == nullptr ? nullptr : static_cast<uint8_t*>(rows_.gradient) + start;
    if (!rows_.keep[row]) {
      if (gradient != nullptr) std::fill_n(gradient, rows_.num_columns * size, uint8_t{0});
      return 0;
    }
    const auto first = static_cast<size_t>(rows_.offsets[static_cast<size_t>(row)]);
    const auto last = static_cast<size_t>(rows_.offsets[static_cast<size_t>(row) + 1]);
    GatherTargets(logits, first, last);
    for (size_t t = 0; t < tiles_.size(); ++t) SumTile(t, logits, gradient);
    const double lse = LogSumExp();
    double total = 0, loss = 0;
    for (size_t i = first; i < last; ++i) {
      const auto weight = static_cast<double>(rows_.weights[i]);
      total += weight;
      // 0 times the logit -infinity is NaN: an entry without weight adds nothing.
      if (weight != 0) loss += weight * (lse - targets_[i - first].z);
    }
    if (gradient != nullptr) {
      for (size_t t = 0; t < tiles_.size(); ++t) WriteTile(t, total, gradient);
      WriteTargets(gradient, lse, total, first, last);
    }
    return static_cast<float>(loss);
  }

 private:
  struct Target {
    double z;      // capped, over T
    double slope;  // of the soft-cap
  };

  // Of the entries, before the gradient overwrites their logits.
  void GatherTargets(const uint8_t* logits, size_t first, size_t last) {
    targets_.clear();
    for (size_t i = first; i < last; ++i) {
      const auto id = static_cast<size_t>(rows_.token_ids[i]);
      float value = rows_.dtype == LossDtype::kFloat32
                        ? reinterpret_cast<const float*>(logits)[id]
                        : Bfloat16ToFloat(reinterpret_cast<const uint16_t*>(logits)[id]);
      // The same rounding as in its tile: p of a sure target has to come out as 1.
      if (capped_) kernels_.tanh(&value, 1, 1.0f / rows_.softcap, &value);
      const auto z = static_cast<double>(value);
      targets_.push_back({z * static_cast<double>(inverse_temperature_), capped_ ? 1 - z * z : 1});
    }
  }

  // First trip: the exponentials of a tile and their sum.
  void SumTile(size_t tile, const uint8_t* logits, uint8_t* gradient) {
    const int64_t at = TileStart(tile), n = TileSize(tile);
    float* const values = Values(tile, gradient);
    const float* z = values;
    if (rows_.dtype == LossDtype::kFloat32)
      z = reinterpret_cast<const float*>(logits) + at;
    else
      kernels_.widen(reinterpret_cast<const uint16_t*>(logits) + at, n, values);
    if (capped_) {
      kernels_.tanh(z, n, 1.0f / rows_.softcap, values);
      tiles_[tile] = kernels_.exponentials(values, n, inverse_temperature_, exps_.data());
    } else {
      tiles_[tile] = kernels_.exponentials(z, n, inverse_temperature_, values);
    }
  }

  // Of z / T. Afterwards each tile's sum is e^(max of the tile / T - lse) 2^-30: what its
  // exponentials still have to be multiplied by.
  double LogSumExp() {
    float max = -HUGE_VALF;
    for (const TileSum& tile : tiles_) max = std::max(max, tile.max);
    const auto shift = [&](const TileSum& tile) {
      // Tiles without mass have no exponent to speak of, unless the whole row is without.
      if (tile.max == -HUGE_VALF && max != -HUGE_VALF) return 0.0;
      return std::exp(static_cast<double>(tile.max - max) *
                      static_cast<double>(inverse_temperature_));
    };
    double sum = 0;
    for (const TileSum& tile : tiles_) sum += tile.sum * shift(tile);
    for (TileSum& tile : tiles_) tile.sum = shift(tile) / sum;
    return static_cast<double>(max) * static_cast<double>(inverse_temperature_) +
           std::log(sum * 0x1p-30);
  }

  // Second trip: W p of a tile.
  void WriteTile(size_t tile, double total, uint8_t* gradient) {
    const int64_t at = TileStart(tile), n = TileSize(tile);
    float* const values = Values(tile, gradient);
    auto factor = static_cast<float>(static_cast<double>(rows_.scale) * total * tiles_[tile].sum);
    const bool narrow = rows_.dtype == LossDtype::kBfloat16;
    if (capped_) {
      kernels_.exponentials(values, n, inverse_temperature_, exps_.data());
      kernels_.multiply_slope(exps_.data(), n, factor, values);
      factor = 1;
    } else if (!narrow) {
      kernels_.multiply(values, n, factor);
    }
    if (narrow)
      kernels_.multiply_narrow(values, n, factor, reinterpret_cast<uint16_t*>(gradient) + at);
  }

  // W p - w of the entries. Where both nearly cancel, their difference is taken before it is
  // rounded.
  void WriteTargets(uint8_t* gradient, double lse, double total, size_t first, size_t last) const {
    for (size_t i = first; i < last; ++i) {
      const Target& target = targets_[i - first];
      const double difference =
          total * std::exp(target.z - lse) - static_cast<double>(rows_.weights[i]);
      const auto value =
          static_cast<float>(static_cast<double>(rows_.scale) * difference * target.slope);
      const auto id = static_cast<size_t>(rows_.token_ids[i]);
      if (rows_.dtype == LossDtype::kFloat32)
        reinterpret_cast<float*>(gradient)[id] = value;
      else
        reinterpret_cast<uint16_t*>(gradient)[id] = FloatToBfloat16(value);
    }
  }

  float* Values(size_t tile, uint8_t* gradient) {
    if (gradient == nullptr) return scratch_.data();
    return (scratch_.empty() ? reinterpret_cast<float*>(gradient) : scratch_.data()) +
           TileStart(tile);
  }

  static int64_t TileStart(size_t tile) { return static_cast<int64_t>(tile) * kSoftmaxTile; }

  int64_t TileSize(size_t tile) const {
    return std::min(kSoftmaxTile, rows_.num_columns - TileStart(tile));
  }

  const LossRows& rows_;
  const LossKernels& kernels_;
  const bool capped_;
  const float inverse_temperature_;  // of tanh(z / c), under a soft-cap c: c / T
  std::vector<TileSum> tiles_;
  std::vector<float> scratch_;
  std::vector<float> exps_;
  std::vector<Target> targets_;
};

Status CheckRows(const LossRows& rows) {
  const auto num_rows = static_cast<size_t>(rows.num_rows);
  if (rows.num_columns < 1) return Status::InvalidArgument("logits have no columns");
  if (rows.offsets.size() != num_rows + 1 || rows.offsets.front() != 0 ||
      rows.offsets.back() != static_cast<int64_t>(rows.token_ids.size()) ||
      !std::is_sorted(rows.offsets.begin(), rows.offsets.end()))
    return Status::InvalidArgument("offsets must rise from 0 to the number of entries");
  if (rows.weights.size() != rows.token_ids.size())
    return Status::InvalidArgument("weights and token_ids differ in length");
  for (const int64_t id : rows.token_ids)
    if (id < 0 || id >= rows.num_columns)
      return Status::InvalidArgument("token id " + std::to_string(id) + " is not below " +
                                     std::to_string(rows.num_columns));
  return Status::Ok();
}

}  // namespace

Status SparseLossRows(const LossRows& rows, int num_threads, float* losses) {
  SPARSELOGITS_RETURN_IF_ERROR(CheckRows(rows));
  const int64_t count = std::clamp<int64_t>(num_threads, 1, std::max<int64_t>(1, rows.num_rows));
  std::vector<RowWorker> workers;
  workers.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) workers.emplace_back(rows);
  // Rows are taken one by one: a thread whose core is busy elsewhere holds nobody up.
  std::atomic<int64_t> next = 0;
  const auto run = [&](RowWorker& worker) {
    for (int64_t row; (row = next.fetch_add(1, std::memory_order_relaxed)) < rows.num_rows;)
      losses[row] = worker.Run(row);
  };
  // Threads live within this call, so that a fork never inherits them.
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  try {
    for (size_t i = 1; i < workers.size(); ++i) threads.emplace_back(run, std::ref(workers[i]));
  } catch (const std::system_error&) {
    // No more threads to be had: this one does their rows.
  }
  run(workers.front());
  for (std::thread& thread : threads) thread.join();
  return Status::Ok();
}

}  // namespace sparselogits
