// The deep check of a finished shard: every frame, every record, every derived byte. It stops at
// the first fault, or goes on and tells for each one which sequences it concerns.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sparselogits/shard_reader.h"
#include "sparselogits/shard_walker.h"

namespace sparselogits {

struct ShardFault {
  Status status;
  // The sequences concerned, first .. last - 1 by their index in the shard: those with data in the
  // damaged frame. None where all data can be read; every one where the shard cannot be opened.
  uint32_t first_sequence = 0, last_sequence = 0;
  bool concerns_all = false;
  std::vector<uint64_t> sequence_ids;  // of first .. last - 1, where their SEQS frames can be read
};

struct VerifiedShard {
  std::shared_ptr<const MappedFile> file;
  std::unique_ptr<ShardReader> reader;  // null where the shard cannot be opened
  std::unique_ptr<ShardWalker> walker;  // what it found: sections, sequence ids, totals
  std::vector<ShardFault> faults;       // in the order of the file
};

enum class AfterFault { kStop, kGoOn };

// Finds the first fault, or all. `progress`, if not empty, is called with the bytes done.
VerifiedShard FindFaults(std::shared_ptr<const MappedFile> file, const Models& models,
                         AfterFault after, const ShardWalker::Progress& progress = {});

// Stops at the first fault and returns it.
Status VerifyShard(std::shared_ptr<const MappedFile> file, const Models& models,
                   const ShardWalker::Progress& progress, VerifiedShard* verified);
Status VerifyShard(const std::string& path, const Models& models,
                   const ShardWalker::Progress& progress, VerifiedShard* verified);

}  // namespace sparselogits
