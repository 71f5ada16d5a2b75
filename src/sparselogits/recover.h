// Makes a finished shard of what a dead writer left.
#pragma once

#include <string>

#include "sparselogits/shard_layout.h"
#include "sparselogits/status.h"

namespace sparselogits {

struct RecoveredShard {
  ShardHeader header;
  Bytes metadata;
  Totals totals;
  uint64_t file_length = 0;    // 0: nothing was committed, and both files are gone
  uint64_t dropped_bytes = 0;  // after the last commit
};

// Cuts the partial shard after its last commit, finishes it and renames it to `path`.
// A partial shard without a committed sequence is removed.
Status RecoverShard(const std::string& partial_path, const std::string& path,
                    RecoveredShard* recovered);

}  // namespace sparselogits
