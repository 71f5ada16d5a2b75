// Draws tokens from rows of logits: unbiased sparse stand-ins for the softmax of each row.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/logit_row.h"
#include "sparselogits/sample_points.h"
#include "sparselogits/status.h"

namespace sparselogits {

struct SampleOptions {
  int rounds = 50;  // 1 to 65535
  SamplerKind sampler = SamplerKind::kMultinomial;
  float temperature = 1.0f;           // p = softmax(logits / temperature)
  float proposal_temperature = 1.0f;  // t: draws come from q proportional to p^t
  bool self_normalize = false;        // importance weights divided by their sum: biased
  uint64_t seed = 0;
  uint64_t offset = 0;  // of kSystematic alone: added to each row's uniform, in units of 2^-62
  int num_threads = 1;  // changes nothing but the time
};

// Which uniforms a row gets: equal keys and seeds give equal uniforms.
struct PositionKey {
  uint64_t sequence_id;
  uint64_t position;  // below 2^48
};

struct LogitRows {
  const void* data;
  LogitDtype dtype;
  int64_t num_rows;
  int64_t num_columns;
  int64_t row_stride;  // in logits
};

// Row r owns the entries offsets[r] to offsets[r + 1], token ids ascending.
struct Draws {
  std::vector<int64_t> offsets;
  std::vector<int32_t> token_ids;
  std::vector<uint16_t> counts;  // sum to rounds in each row; empty when weights are made
  std::vector<float> weights;    // count / rounds * p / q; made when proposal_temperature != 1
};

// Replaces *draws. keys has one element a row.
//
// Fails with InvalidArgument, naming the first row at fault, for NaN, +infinity, a row without a
// finite logit, a logit that leaves float32 when scaled, and options out of range.
Status Sample(const LogitRows& rows, const PositionKey* keys, const SampleOptions& options,
              Draws* draws);

}  // namespace sparselogits
