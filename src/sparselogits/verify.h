// The deep check of a finished shard: every frame, every record, every derived byte.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "sparselogits/shard_reader.h"
#include "sparselogits/shard_walker.h"

namespace sparselogits {

struct VerifiedShard {
  std::unique_ptr<ShardReader> reader;
  std::unique_ptr<ShardWalker> walker;  // what it found: sections, sequence ids, totals
};

// Returns the first fault. `progress`, if not empty, is called with the bytes done.
Status VerifyShard(const std::string& path, const std::function<void(uint64_t)>& progress,
                   VerifiedShard* verified);
Status VerifyShard(std::unique_ptr<MappedFile> file, const std::function<void(uint64_t)>& progress,
                   VerifiedShard* verified);

}  // namespace sparselogits
