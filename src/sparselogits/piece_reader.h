// Makes all arrays of a training batch from pieces of sequences, in one call.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "sparselogits/cache_reader.h"
#include "sparselogits/memory_pool.h"

namespace sparselogits {

// What no loss looks at: torch's ignore_index.
inline constexpr int64_t kIgnoredLabel = -100;

// The N pieces of a batch of B rows. Piece i is the positions starts[i] .. stops[i] - 1 (-1: to the
// end) of a sequence; row b the pieces row_offsets[b] .. row_offsets[b + 1] - 1, end to end.
struct Pieces {
  std::vector<int32_t> caches;
  std::vector<int64_t> sequences, starts, stops;  // as long as `caches`
  std::vector<int64_t> row_offsets;               // (B + 1)
};

// B rows, padded to the S positions of the longest.
struct PieceBatch {
  uint64_t num_rows = 0, width = 0;
  Buffer<int64_t> input_ids, labels;  // (B S); the pad token and kIgnoredLabel where no token is
  Buffer<int64_t> offsets;            // (B S + 1), into the entries; padding has none
  Buffer<int32_t> token_ids;          // (E)
  Buffer<float> weights;              // (E), counts / rounds or as they were stored
  std::vector<int64_t> lengths;       // (N), of the pieces
  std::vector<SequenceInfo> infos;    // (N), of their sequences
};

// Safe to use from several threads at once, and in the child of a fork.
class PieceReader {
 public:
  // Gets the memory of batches from the pool, to which they should return.
  // REQUIRES: the caches outlive it.
  PieceReader(std::vector<const CacheReader*> caches, int64_t pad_token_id,
              std::shared_ptr<MemoryPool> pool)
      : caches_(std::move(caches)), pad_token_id_(pad_token_id), pool_(std::move(pool)) {}

  const std::shared_ptr<MemoryPool>& pool() const { return pool_; }

  // The label of a position is the next token of the same sequence, beyond the piece too. Where a
  // cache stores no tokens, its positions have the pad token and kIgnoredLabel.
  Status Read(const Pieces& pieces, PieceBatch* out) const;

 private:
  // The decoded positions of all pieces, end to end; of each, one token more where it has a next.
  Status Decode(const Pieces& pieces, std::span<const SequenceRange> ranges,
                CacheBatch* batch) const;
  Status DecodePiece(const CacheReader& cache, const SequenceRange& range, CacheBatch* batch) const;
  void LayOutTokens(const Pieces& pieces, std::span<const SequenceRange> ranges,
                    const Buffer<int32_t>& tokens, PieceBatch* out) const;
  bool has_tokens(int32_t cache) const {
    return caches_[static_cast<size_t>(cache)]->config().format.store_tokens;
  }

  std::vector<const CacheReader*> caches_;
  int64_t pad_token_id_;
  std::shared_ptr<MemoryPool> pool_;
};

}  // namespace sparselogits
