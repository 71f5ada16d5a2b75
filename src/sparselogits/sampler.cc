#include "sparselogits/sampler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <iterator>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "sparselogits/exp_mass.h"
#include "sparselogits/limits.h"
#include "sparselogits/proposal_row.h"
#include "sparselogits/tile_row.h"

namespace sparselogits {
namespace {

// A contiguous range of rows: what one thread draws.
struct Range {
  int64_t begin;
  int64_t end;
  Draws draws;  // offsets holds the entries of each row instead, until the ranges are joined
  Status status;
  std::exception_ptr exception;
};

Status CheckOptions(const LogitRows& rows, const SampleOptions& options) {
  if (rows.num_columns < 1 || rows.num_columns > kMaxSampledVocabulary) {
    return Status::InvalidArgument("logits have " + std::to_string(rows.num_columns) +
                                   " columns: from 1 to 2^24 can be sampled");
  }
  if (options.rounds < 1 || options.rounds > static_cast<int>(kMaxRounds)) {
    return Status::InvalidArgument("rounds must be from 1 to 65535, got " +
                                   std::to_string(options.rounds));
  }
  for (const float temperature : {options.temperature, options.proposal_temperature}) {
    if (!(temperature > 0) || !std::isfinite(temperature)) {
      return Status::InvalidArgument("temperatures must be finite and above 0, got " +
                                     std::to_string(temperature));
    }
  }
  if (options.offset != 0 && options.sampler != SamplerKind::kSystematic) {
    return Status::InvalidArgument("an offset is for the systematic sampler alone");
  }
  if (options.offset >= kUniformLimit) {
    return Status::InvalidArgument("offset must be below 2^62, got " +
                                   std::to_string(options.offset));
  }
  if (options.num_threads < 1) {
    return Status::InvalidArgument("num_threads must be at least 1, got " +
                                   std::to_string(options.num_threads));
  }
  return Status::Ok();
}

// Where a point lies inside a tile: the masses are made piece by piece, as far as points need them.
template <typename Row>
class TileCursor {
 public:
  using Mass = typename Row::Mass;

  TileCursor(const Row& row, int64_t tile) : row_(row), tile_(tile) {}

  // Goes on to the token on which a value of the running sum falls. Values must ascend.
  // REQUIRES: value is below the sum of the tile's masses.
  void Seek(int64_t value) {
    while (value >= step_end_) NextStep();
    while (value >= end_) end_ += masses_[next_++];
  }

  int64_t token() const { return tile_ * kTile + next_ - 1; }
  Mass mass() const { return masses_[next_ - 1]; }

 private:
  static constexpr int64_t kStep = 16;  // most steps are passed by at once
  static_assert(kTilePiece % kStep == 0);

  void NextStep() {
    next_ = step_;
    if (step_ % kTilePiece == 0) row_.PieceMasses(tile_, step_, masses_ + step_);
    end_ = step_end_;
    for (int64_t i = 0; i < kStep; ++i) step_end_ += masses_[step_ + i];
    step_ += kStep;
  }

  const Row& row_;
  const int64_t tile_;
  int64_t next_ = 0;      // of the first token beyond end_
  int64_t end_ = 0;       // the sum of the masses before it
  int64_t step_ = 0;      // where the next step begins
  int64_t step_end_ = 0;  // the sum of the masses before that
  Mass masses_[kTile];
};

// Appends the tokens that the points fall on. Row is a TileRow or a ProposalRow. Masses of the
// tokens go to *masses.
template <typename Row>
void DrawCounts(const Row& row, const std::vector<int64_t>& points, Draws* draws,
                std::vector<typename Row::Mass>* masses) {
  masses->clear();
  int64_t below = 0;  // the total of all earlier tiles
  auto point = points.begin();
  for (int64_t tile = 0; point != points.end(); ++tile) {
    const int64_t tile_end = below + row.tile_total(tile);
    if (*point < tile_end) {
      TileCursor<Row> cursor(row, tile);
      const auto scale = row.ScaleOf(tile);
      int64_t last = -1;
      for (; point != points.end() && *point < tile_end; ++point) {
        cursor.Seek(scale.Within(*point - below));
        if (cursor.token() != last) {
          last = cursor.token();
          draws->token_ids.push_back(static_cast<int32_t>(last));
          draws->counts.push_back(0);
          masses->push_back(cursor.mass());
        }
        ++draws->counts.back();
      }
    }
    below = tile_end;
  }
}

// Turns the counts of the last row into importance weights.
void WeighLastRow(const ProposalRow& row, const SampleOptions& options,
                  const std::vector<int64_t>& masses, Draws* draws, std::vector<double>* scratch) {
  const size_t size = masses.size();
  const int32_t* ids = draws->token_ids.data() + (draws->token_ids.size() - size);
  std::vector<double>& weights = *scratch;
  weights.resize(size);
  if (options.self_normalize) {
    double largest = -HUGE_VAL;
    for (size_t i = 0; i < size; ++i) {
      weights[i] = row.LogImportanceRatio(ids[i], masses[i]);
      largest = std::max(largest, weights[i]);
    }
    double sum = 0;
    for (size_t i = 0; i < size; ++i) {
      weights[i] = draws->counts[i] * std::exp(weights[i] - largest);
      sum += weights[i];
    }
    for (double& weight : weights) weight /= sum;
  } else {
    for (size_t i = 0; i < size; ++i) {
      weights[i] = draws->counts[i] * row.ImportanceRatio(ids[i], masses[i]) / options.rounds;
    }
  }
  for (const double weight : weights) draws->weights.push_back(static_cast<float>(weight));
  draws->counts.clear();
}

// Draws the rows of a range. `weigh(masses)` is called after each of them.
template <typename Row, typename Weigh>
Status DrawRange(const LogitRows& rows, const PositionKey* keys, const SampleOptions& options,
                 LogitRow* logits, Row* row, Range* range, Weigh weigh) {
  PointMaker maker;
  std::vector<typename Row::Mass> masses;
  Draws& draws = range->draws;
  draws.offsets.reserve(static_cast<size_t>(range->end - range->begin + 1));
  const int64_t row_bytes = rows.row_stride * BytesOf(rows.dtype);
  for (int64_t r = range->begin; r < range->end; ++r) {
    logits->Point(static_cast<const uint8_t*>(rows.data) + r * row_bytes);
    SPARSELOGITS_RETURN_IF_ERROR(row->Load(r));
    const PositionUniforms uniforms(options.seed, keys[r].sequence_id, keys[r].position);
    DrawCounts(*row,
               maker.Make(options.sampler, options.rounds, row->total(), uniforms, options.offset),
               &draws, &masses);
    weigh(masses);
    draws.offsets.push_back(static_cast<int64_t>(masses.size()));
  }
  return Status::Ok();
}

Status SampleRange(const LogitRows& rows, const PositionKey* keys, const SampleOptions& options,
                   Range* range) {
  LogitRow logits(rows.dtype, rows.num_columns, options.temperature, options.proposal_temperature);
  if (options.proposal_temperature == 1.0f) {
    TileRow row(logits);
    return DrawRange(rows, keys, options, &logits, &row, range, [](const auto&) {});
  }
  ProposalRow row(logits, options.proposal_temperature);
  std::vector<double> scratch;
  return DrawRange(rows, keys, options, &logits, &row, range, [&](const auto& masses) {
    WeighLastRow(row, options, masses, &range->draws, &scratch);
  });
}

// Joins the ranges in row order and turns entries per row into offsets.
void Join(std::vector<Range>& ranges, Draws* draws) {
  *draws = std::move(ranges.front().draws);
  for (size_t i = 1; i < ranges.size(); ++i) {
    const Draws& next = ranges[i].draws;
    draws->offsets.insert(draws->offsets.end(), next.offsets.begin(), next.offsets.end());
    draws->token_ids.insert(draws->token_ids.end(), next.token_ids.begin(), next.token_ids.end());
    draws->counts.insert(draws->counts.end(), next.counts.begin(), next.counts.end());
    draws->weights.insert(draws->weights.end(), next.weights.begin(), next.weights.end());
  }
  int64_t end = 0;
  draws->offsets.push_back(0);
  for (int64_t& offset : draws->offsets) {
    const int64_t entries = offset;
    offset = end;
    end += entries;
  }
}

}  // namespace

Status Sample(const LogitRows& rows, const PositionKey* keys, const SampleOptions& options,
              Draws* draws) {
  SPARSELOGITS_RETURN_IF_ERROR(CheckOptions(rows, options));
  const int64_t num_ranges =
      std::clamp<int64_t>(options.num_threads, 1, std::max<int64_t>(1, rows.num_rows));
  std::vector<Range> ranges(static_cast<size_t>(num_ranges));
  for (int64_t i = 0; i < num_ranges; ++i) {
    ranges[static_cast<size_t>(i)].begin = rows.num_rows * i / num_ranges;
    ranges[static_cast<size_t>(i)].end = rows.num_rows * (i + 1) / num_ranges;
  }
  const auto run = [&](Range& range) {
    try {
      range.status = SampleRange(rows, keys, options, &range);
    } catch (...) {  // out of memory: carried to the caller's thread
      range.exception = std::current_exception();
    }
  };
  // Threads live within this call, so that a fork never inherits them.
  std::vector<std::thread> threads;
  threads.reserve(ranges.size() - 1);
  size_t started = 1;
  try {
    for (; started < ranges.size(); ++started) threads.emplace_back(run, std::ref(ranges[started]));
  } catch (const std::system_error&) {
    // No more threads to be had: the rest is done here.
  }
  run(ranges.front());
  for (size_t i = started; i < ranges.size(); ++i) run(ranges[i]);
  for (std::thread& thread : threads) thread.join();
  for (Range& range : ranges) {
    if (range.exception) std::rethrow_exception(range.exception);
    SPARSELOGITS_RETURN_IF_ERROR(std::move(range.status));
  }
  Join(ranges, draws);
  return Status::Ok();
}

}  // namespace sparselogits
