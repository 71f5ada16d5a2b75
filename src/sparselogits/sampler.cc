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
#include "sparselogits/sampled_row.h"

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
  if (options.num_threads < 1) {
    return Status::InvalidArgument("num_threads must be at least 1, got " +
                                   std::to_string(options.num_threads));
  }
  return Status::Ok();
}

constexpr int64_t kStep = 16;
static_assert(SampledRow::kTile % kStep == 0);

int64_t SumStep(const int64_t* masses, int64_t sum) {
  for (int64_t i = 0; i < kStep; ++i) sum += masses[i];
  return sum;
}

// Appends the tokens that the points fall on. Masses of the tokens go to *masses.
void DrawCounts(const SampledRow& row, const std::vector<int64_t>& points, Draws* draws,
                std::vector<int64_t>* masses) {
  masses->clear();
  int64_t tile_masses[SampledRow::kTile];
  int64_t below = 0;  // the mass of all earlier tiles
  auto point = points.begin();
  for (int64_t tile = 0; point != points.end(); ++tile) {
    const int64_t tile_end = below + row.tile_total(tile);
    if (*point < tile_end) {
      std::fill(tile_masses + row.TileMasses(tile, tile_masses), std::end(tile_masses), 0);
      int64_t cumulative = below;
      for (int64_t i = 0; point != points.end() && *point < tile_end; ++i) {
        if (i % kStep == 0) {  // most steps are passed by at once
          int64_t step_end = SumStep(tile_masses + i, cumulative);
          for (; *point >= step_end; step_end = SumStep(tile_masses + i, cumulative)) {
            cumulative = step_end;
            i += kStep;
          }
        }
        cumulative += tile_masses[i];
        const auto first = point;
        while (point != points.end() && *point < cumulative) ++point;
        if (point == first) continue;
        draws->token_ids.push_back(static_cast<int32_t>(tile * SampledRow::kTile + i));
        draws->counts.push_back(static_cast<uint16_t>(point - first));
        masses->push_back(tile_masses[i]);
      }
    }
    below = tile_end;
  }
}

// Turns the counts of the last row into importance weights.
void WeighLastRow(const SampledRow& row, const SampleOptions& options,
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

Status SampleRange(const LogitRows& rows, const PositionKey* keys, const SampleOptions& options,
                   Range* range) {
  SampledRow row(rows.num_columns, options.temperature, options.proposal_temperature);
  std::vector<int64_t> points;
  std::vector<int64_t> masses;
  std::vector<double> scratch;
  Draws& draws = range->draws;
  draws.offsets.reserve(static_cast<size_t>(range->end - range->begin + 1));
  for (int64_t r = range->begin; r < range->end; ++r) {
    SPARSELOGITS_RETURN_IF_ERROR(row.Load(rows.data + r * rows.row_stride, r));
    FillPoints(options.sampler, options.rounds, row.total(),
               PositionUniforms(options.seed, keys[r].sequence_id, keys[r].position), points);
    DrawCounts(row, points, &draws, &masses);
    if (row.has_proposal()) WeighLastRow(row, options, masses, &draws, &scratch);
    draws.offsets.push_back(static_cast<int64_t>(masses.size()));
  }
  return Status::Ok();
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
