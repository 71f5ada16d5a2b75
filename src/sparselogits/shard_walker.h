// Walks the frames of a shard from its header on, checking everything that they say about each
// other: the common ground of recovery and verification. It stops at the first fault, or is told of
// each one and goes on behind it.
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
  using Progress = std::function<void(uint64_t bytes_done)>;
  // The fault of the frame at `offset`; the walk would go on at `next`. Returns whether to go on.
  using OnFault = std::function<bool(uint64_t offset, uint64_t next, Status fault)>;

  // `models`: as for ShardReader::Open; needed only where records are looked at.
  ShardWalker(ByteSpan file, WalkDepth depth, Models models = {});

  // Reads the header, then frames until `end` (a byte offset). Returns the first fault; where
  // `on_fault` is given it gets the faults of frames, and only that of the header is returned.
  // A frame that cannot be trusted makes its commit group useless as a witness: what would merely
  // follow from the loss is not reported. `progress`, if not empty, is called after each commit.
  Status Walk(uint64_t end, const Progress& progress = {}, const OnFault& on_fault = {});

  const ShardHeader& header() const { return header_; }
  const ShardIndex& index() const { return index_; }
  const Totals& totals() const { return totals_; }  // of the frames walked so far
  uint32_t commit_chain() const { return commit_chain_; }
  uint64_t committed_end() const { return committed_end_; }  // 0 without a commit
  const Bytes& metadata() const { return metadata_; }
  const std::vector<uint64_t>& sequence_ids() const { return sequence_ids_; }
  const FrameSections& sections() const { return sections_; }

 private:
  Status TakeFrameAt(uint64_t offset, uint64_t end, Frame* frame);
  uint64_t NextFrame(uint64_t offset, uint64_t end) const;
  Status Take(const Frame& frame);
  Status TakeBlock(const Frame& frame);
  Status TakeSequences(const Frame& frame);
  Status TakeCommit(const Frame& frame);
  void ResumeAfter(const Frame& commit, const Totals& stated, uint32_t chain);
  bool ChecksFingerprints() const {
    return depth_ == WalkDepth::kRecords && header_.config.format.store_tokens &&
           !group_is_damaged_;
  }

  ByteSpan file_;
  WalkDepth depth_;
  ShardHeader header_;
  Models models_;
  std::unique_ptr<CodecSet> codecs_;
  ShardIndex index_;
  Totals totals_;
  uint64_t sequence_positions_ = 0;  // of the sequences walked so far
  bool group_is_damaged_ = false;    // since the last commit
  uint32_t chain_ = 0, commit_chain_ = 0;
  uint64_t committed_end_ = 0;
  Bytes metadata_;
  bool seen_metadata_ = false;
  std::vector<uint64_t> sequence_ids_;
  std::vector<uint32_t> tokens_;  // of positions whose SEQS frame is still to come
  FrameSections sections_;
};

}  // namespace sparselogits
