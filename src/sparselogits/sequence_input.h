// What a caller appends, and the canonical form in which it is stored.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sparselogits/records.h"
#include "sparselogits/status.h"

namespace sparselogits {

// One or several sequences as they come from a sampler: entries of a position in any order, ids
// repeated. Nothing about the values is trusted.
struct SequenceInput {
  std::span<const int64_t> input_ids;         // (positions)
  std::span<const int64_t> sequence_offsets;  // (sequences + 1), into positions
  std::span<const int64_t> offsets;           // (positions + 1), into entries
  std::span<const int64_t> token_ids;         // (entries)
  std::span<const int64_t> counts;            // (entries) in counts caches
  std::span<const float> weights;             // (entries) in weights caches
  std::span<const uint64_t> sequence_ids;     // (sequences)
  // (sequences) of tokens that are not at hand, whose input_ids are placeholders; only where tokens
  // are not stored. Empty: hashed from input_ids.
  std::span<const uint64_t> fingerprints = {};
};

// Valid sequences: ids strictly ascending within a position, counts that sum to rounds.
struct CanonicalSequences {
  std::vector<uint32_t> tokens;
  std::vector<uint32_t> entries;  // of each position
  std::vector<uint32_t> token_ids;
  std::vector<uint16_t> counts;
  std::vector<uint32_t> weight_bits;
  std::vector<uint64_t> sequence_ids;
  std::vector<uint64_t> fingerprints;
  std::vector<uint32_t> lengths;

  BlockView view() const { return {tokens, entries, token_ids, counts, weight_bits}; }
  void Append(const CanonicalSequences& other);
  // Drops the first positions and entries, which are stored.
  void DropPositions(size_t num_positions, size_t num_entries);
};

// Checks the input against the format, sorts and merges the entries of each position.
// The Status names the sequence, the position, the value and the limit.
Status Canonicalise(const SequenceInput& input, const RecordFormat& format,
                    CanonicalSequences* out);

}  // namespace sparselogits
