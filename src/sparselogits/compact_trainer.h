// Learns a compact model from sampled positions.
#pragma once

#include "sparselogits/compact_model.h"

namespace sparselogits {

struct TrainingOptions {
  uint32_t num_classes = 0;  // 0: as many as the positions can tell apart
  // Of the cache that will use the model, which is the larger the more it pays for. 0: unknown, and
  // taken for many times the samples.
  uint64_t expected_positions = 0;
};

// REQUIRES: the block is valid for `format` and holds at least one position. It may be of any
// length. The input tokens are looked at only where the format stores them.
Status TrainModel(const RecordFormat& format, const BlockView& samples,
                  const TrainingOptions& options, ModelPtr* out);

}  // namespace sparselogits
