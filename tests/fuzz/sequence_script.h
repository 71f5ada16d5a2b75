// An input of fuzz_round_trip as what a writer does: a configuration, and sequences with commits
// between them.
#pragma once

#include <bit>
#include <map>
#include <vector>

#include "compact_models.h"
#include "fuzz_support.h"
#include "sparselogits/half.h"
#include "sparselogits/limits.h"
#include "sparselogits/sequence_input.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits::fuzz {

// One sequence as it is appended, and the records that must come back.
struct ScriptSequence {
  uint64_t sequence_id = 0;
  std::vector<int64_t> input_ids;
  std::vector<int64_t> offsets = {0};
  std::vector<int64_t> token_ids, counts;
  std::vector<float> weights;
  std::vector<std::map<uint32_t, uint32_t>> records;  // id -> count, or the weight's float32 bits

  SequenceInput input(const std::vector<int64_t>& bounds) const {
    SequenceInput input;
    input.input_ids = input_ids;
    input.sequence_offsets = bounds;
    input.offsets = offsets;
    input.token_ids = token_ids;
    input.counts = counts;
    input.weights = weights;
    input.sequence_ids = {&sequence_id, 1};
    return input;
  }
};

// `model` is set where blocks are to be compact; the format is then that of the model.
inline ShardHeader TakeHeader(Input* input, ModelPtr* model) {
  ShardHeader header;
  header.uuid = {'f', 'u', 'z', 'z'};
  const uint8_t flags = input->Byte();
  RecordFormat& format = header.config.format;
  format.store_tokens = (flags & 1) != 0;
  format.weight_dtype = static_cast<WeightDtype>((flags >> 1) % 4);
  format.value_kind =
      format.weight_dtype == WeightDtype::kNone ? ValueKind::kCounts : ValueKind::kWeights;
  header.incompatible_features = (flags & 8) != 0 ? kFeatureLz4Frames : 0;
  header.block_log2 = static_cast<uint8_t>(kMinBlockLog2 + (flags >> 4) % 2);
  format.vocab_size = (1u << input->Below(25)) - (input->Below(2) != 0 ? 0 : 1);
  format.vocab_size = std::max(format.vocab_size, 1u);
  format.rounds = input->Below(2) != 0 ? input->Below(64) + 1 : input->Below(kMaxRounds) + 1;
  header.config.sampler = "multinomial";
  if (flags >= 192) {
    const uint8_t number = input->Byte();
    *model = ModelOf(number);
    format = FormatOfModel(number).format;
    header.config.codec = CodecId::kCompact;
  }
  return header;
}

// A record: counts that sum to rounds, with ids in any order and repeated; or weights that the type
// can hold.
inline void TakeRecord(const RecordFormat& format, Input* input, ScriptSequence* sequence) {
  std::map<uint32_t, uint32_t> record;
  const auto put = [&](uint32_t id, uint32_t count, float weight) {
    sequence->token_ids.push_back(id);
    if (format.value_kind == ValueKind::kCounts) {
      sequence->counts.push_back(count);
      record[id] += count;
    } else {
      sequence->weights.push_back(weight);
      record[id] = std::bit_cast<uint32_t>(weight + 0.0f);
    }
  };
  uint32_t left = format.rounds;
  for (uint32_t entries = input->Below(12); entries > 0 && left > 0; --entries) {
    const uint32_t id = input->Below(format.vocab_size);
    if (format.value_kind == ValueKind::kCounts) {
      const uint32_t count = entries == 1 ? left : input->Below(left) + 1;
      put(id, count, 0);
      left -= count;
    } else if (record.count(id) == 0) {
      const auto bits = static_cast<uint32_t>(input->Number(WeightBits(format.weight_dtype) / 8));
      const float weight = WeightFromBits(bits, format.weight_dtype);
      put(id, 0, std::isfinite(weight) ? std::fabs(weight) : 1.0f);
    }
  }
  if (format.value_kind == ValueKind::kCounts && !record.empty() && left > 0)
    put(0, left, 0);  // the rest
  sequence->offsets.push_back(static_cast<int64_t>(sequence->token_ids.size()));
  sequence->records.push_back(std::move(record));
}

inline ScriptSequence TakeSequence(const RecordFormat& format, uint64_t sequence_id, Input* input) {
  ScriptSequence sequence;
  sequence.sequence_id = sequence_id;
  // Mostly short ones, some over several stretches and blocks.
  const uint32_t length = input->Below(4) == 0 ? input->Below(300) : input->Below(6);
  for (uint32_t p = 0; p < length; ++p) {
    sequence.input_ids.push_back(input->Below(format.vocab_size));
    TakeRecord(format, input, &sequence);
  }
  return sequence;
}

}  // namespace sparselogits::fuzz
