// Reads the shards of a cache as one: global sequence and position indices.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sparselogits/shard_pool.h"

namespace sparselogits {

// Elements of an array that get room before anything is decoded: what a file claims to hold is
// worth a few megabytes, no more.
inline constexpr uint64_t kMostReserved = 1u << 20;

// What one read returns; see RecordBatch.
struct CacheBatch {
  RecordBatch records;
  Buffer<int32_t> tokens;            // one a position, where the cache stores tokens
  Buffer<int64_t> sequence_offsets;  // (sequences + 1), into positions
};

// Where positions of one sequence are.
struct SequenceRange {
  uint64_t first, last;  // global positions first .. last - 1
  bool has_next;         // whether the sequence goes on at `last`
};

// Safe to use from several threads at once, and in the child of a fork.
class CacheReader {
 public:
  // Opens every shard and compares it with its row and with the configuration. No more than
  // max_open_shards stay open, and one for each thread that reads.
  static Status Open(const std::vector<ShardRow>& rows, const ShardConfig& config,
                     const Models& models, CheckPayload check_payloads,
                     std::unique_ptr<CacheReader>* out, size_t max_open_shards = kMaxOpenShards,
                     ShardFiles files = ShardFiles::kAllThere);

  uint64_t num_sequences() const { return sequence_starts_.back(); }
  uint64_t num_positions() const { return position_starts_.back(); }
  uint64_t num_entries() const { return num_entries_; }
  const ShardConfig& config() const { return config_; }

  // Positions start .. stop - 1 of a sequence; stop = -1 stands for its end.
  Status FindRange(int64_t sequence, int64_t start, int64_t stop, SequenceRange* range) const;
  Status FindInfo(int64_t sequence, SequenceInfo* info) const;
  // Appends the positions first .. last - 1 to `batch`, whose offsets begin with a 0.
  // REQUIRES: first <= last <= num_positions().
  Status ReadRange(uint64_t first, uint64_t last, CacheBatch* batch) const;
  // Entries that so many positions are likely to have: the average and a fifth more; kMostReserved
  // at most.
  size_t LikelyEntries(uint64_t num_positions) const;

  // The range of FindRange of each sequence.
  Status ReadSequences(std::span<const int64_t> sequences, int64_t start, int64_t stop,
                       CacheBatch* batch) const;
  Status ReadPositions(std::span<const int64_t> positions, CacheBatch* batch) const;
  // Every sequence's id and fingerprint, and the global position at which it starts.
  Status ReadSequenceTable(std::vector<SequenceInfo>* infos, std::vector<int64_t>* starts) const;

  // One sequence as the cache knows it.
  struct SequencePlace {
    SequenceInfo info;
    int64_t start;  // global position
    int64_t length;
  };
  // Of each of these sequences, from their shards alone.
  Status ReadPlaces(std::span<const int64_t> sequences, std::vector<SequencePlace>* places) const;

  // Of shards that come and go: see ShardPool.
  Status Admit(int64_t shard) const;
  Status Dismiss(int64_t shard) const;

 private:
  CacheReader() = default;
  // The shard that holds a sequence, and its index there.
  Status FindSequence(int64_t sequence, size_t* shard, uint32_t* local,
                      std::shared_ptr<const ShardReader>* reader) const;
  Status CheckIndex(const char* what, int64_t index, uint64_t count) const;
  void Reserve(uint64_t num_positions, CacheBatch* batch) const;

  ShardConfig config_;
  std::unique_ptr<ShardPool> shards_;
  std::vector<uint64_t> sequence_starts_ = {0},
                        position_starts_ = {0};  // of each shard, and the end
  uint64_t num_entries_ = 0;
};

}  // namespace sparselogits
