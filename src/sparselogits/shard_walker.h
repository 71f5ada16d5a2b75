// Walks the frames of a shard from its header on, checking everything that they say about each
// other: the common ground of recovery and verification.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sparselogits/codec.h"
#include "sparselogits/frame_reader.h"
#include "sparselogits/shard_index.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits {

enum class WalkDepth { kFrames, kRecords };  // checksums and structure; or every record too

// Where the bits of the frames go. An LZ4-wrapped payload is one part: its sections are mixed.
struct FrameSections {
  BlockSections block;
  uint64_t frame_headers = 0;
  uint64_t metadata = 0;
  uint64_t sequence_ids = 0;
  uint64_t fingerprints = 0;
  uint64_t lengths = 0;
  uint64_t commits = 0;
  uint64_t wrapped_blocks = 0;
  uint64_t wrapped_others = 0;
  uint64_t padding = 0;
};

class ShardWalker {
 public:
  ShardWalker(ByteSpan file, WalkDepth depth);

  // Reads the header, then frames until `end` (a byte offset). Returns the first fault.
  // `progress`, if not empty, is called with the bytes done after each commit.
  Status Walk(uint64_t end, const std::function<void(uint64_t)>& progress = {});

  const ShardHeader& header() const { return header_; }
  const ShardIndex& index() const { return index_; }
  const Totals& totals() const { return totals_; }  // of the frames walked so far
  uint32_t commit_chain() const { return commit_chain_; }
  uint64_t committed_end() const { return committed_end_; }  // 0 without a commit
  const Bytes& metadata() const { return metadata_; }
  const std::vector<uint64_t>& sequence_ids() const { return sequence_ids_; }
  const FrameSections& sections() const { return sections_; }

 private:
  Status Take(const Frame& frame);
  Status TakeBlock(const Frame& frame);
  Status TakeSequences(const Frame& frame);
  Status TakeCommit(const Frame& frame);

  ByteSpan file_;
  WalkDepth depth_;
  ShardHeader header_;
  std::unique_ptr<BlockCodec> codec_;
  ShardIndex index_;
  Totals totals_;
  uint32_t chain_ = 0, commit_chain_ = 0;
  uint64_t committed_end_ = 0;
  Bytes metadata_;
  bool seen_metadata_ = false;
  std::vector<uint64_t> sequence_ids_;
  std::vector<uint32_t> tokens_;  // of positions whose SEQS frame is still to come
  FrameSections sections_;
};

}  // namespace sparselogits
