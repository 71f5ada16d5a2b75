// How the bytes of an input say which records a block holds; the rest of the input is its content.
#pragma once

#include "fuzz_support.h"
#include "sparselogits/limits.h"
#include "sparselogits/records.h"

namespace sparselogits::fuzz {

struct BlockInput {
  RecordFormat format;
  uint32_t num_positions = 0;
  uint32_t num_entries = 0;  // what the frame would state
  ByteSpan content;
};

inline constexpr uint32_t kMaxFuzzedPositions = 1024;  // 16 stretches

// 12 bytes: kind, vocab_size - 1 (3), rounds - 1 (2), num_positions - 1 (2), num_entries (4).
inline BlockInput TakeBlockInput(ByteSpan bytes) {
  Input input(bytes);
  BlockInput block;
  const uint8_t kind = input.Byte();
  block.format.store_tokens = (kind & 1) != 0;
  block.format.weight_dtype = static_cast<WeightDtype>((kind >> 1) % 4);
  block.format.value_kind =
      block.format.weight_dtype == WeightDtype::kNone ? ValueKind::kCounts : ValueKind::kWeights;
  block.format.vocab_size = static_cast<uint32_t>(input.Number(3)) + 1;
  block.format.rounds = static_cast<uint32_t>(input.Number(2)) % kMaxRounds + 1;
  block.num_positions = static_cast<uint32_t>(input.Number(2)) % kMaxFuzzedPositions + 1;
  block.num_entries = static_cast<uint32_t>(input.Number(4));
  block.content = input.rest();
  return block;
}

}  // namespace sparselogits::fuzz
