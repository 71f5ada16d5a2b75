// The shards of one cache, of which a limited number is open at a time.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "sparselogits/shard_reader.h"

namespace sparselogits {

// What a manifest says of a shard.
struct ShardRow {
  std::string path;
  Uuid uuid;
  uint64_t file_length;
  Totals totals;
};

// How many shards a cache keeps mapped. Linux lets a process have 65,530 maps (vm.max_map_count):
// 64 caches at this limit take half of them.
inline constexpr size_t kMaxOpenShards = 512;

enum class ShardFiles : bool {
  kAllThere,   // every file is there, from Open() on
  kComeAndGo,  // those that Admit() names, until Dismiss()
};

// Safe to use from several threads at once, and in the child of a fork.
class ShardPool {
 public:
  // Opens every shard that is there once, and compares it with its row and with the configuration.
  // max_open bounds the shards that stay open, but for those that come and go.
  static Status Open(const std::vector<ShardRow>& rows, const ShardConfig& config,
                     const Models& models, CheckPayload check_payloads, size_t max_open,
                     ShardFiles files, std::unique_ptr<ShardPool>* out);

  // The shard at index i, which stays mapped as long as *shard and the pool live. A shard that was
  // closed is opened and compared again; one that was not admitted is an internal error.
  // REQUIRES: there is one.
  Status Get(size_t i, std::shared_ptr<const ShardReader>* shard) const;

  // Opens and compares the shard at index i, whose file has come, and keeps it open. One that is
  // open is replaced; who reads it reads on in the old file. REQUIRES: there is a shard i.
  Status Admit(size_t i) const;
  // Closes it, as soon as nobody reads it, unless it is closed. REQUIRES: there is a shard i.
  Status Dismiss(size_t i) const;

 private:
  struct Slot {
    std::shared_ptr<const ShardReader> shard;  // null while it is closed
    std::list<size_t>::iterator place;         // in recent_, where it is open
  };

  ShardPool() = default;
  bool all_stay_open() const {
    return files_ == ShardFiles::kAllThere && rows_.size() <= max_open_;
  }
  Status CheckComesAndGoes() const;
  Status OpenAll() const;
  Status OpenShard(size_t i, std::unique_ptr<MappedFile> file,
                   std::shared_ptr<const ShardReader>* shard) const;
  Status OpenShard(size_t i, std::shared_ptr<const ShardReader>* shard) const;
  void Keep(size_t i, std::shared_ptr<const ShardReader>* shard) const;

  std::vector<ShardRow> rows_;
  ShardConfig config_;
  Models models_;
  CheckPayload check_payloads_ = CheckPayload::kYes;
  size_t max_open_ = 0;
  ShardFiles files_ = ShardFiles::kAllThere;
  // Constant after Open() where all stay open; else guarded by the mutex of shard_pool.cc.
  mutable std::vector<Slot> slots_;
  mutable std::list<size_t> recent_;  // the open ones that may be closed, the latest used first
};

}  // namespace sparselogits
