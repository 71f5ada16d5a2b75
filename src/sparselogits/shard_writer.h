// Writes one shard: validated sequences in, frames out, crash-safe at every commit.
#pragma once

#include <memory>
#include <string>

#include "sparselogits/output_file.h"
#include "sparselogits/sequence_input.h"
#include "sparselogits/shard_index.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits {

class ShardWriter {
 public:
  // Creates `path` exclusively and writes the header and the metadata (JSON) to it. Leaves no file
  // where it fails.
  // Blocks are `compact` where the header asks for it and a model is given, and it makes them
  // smaller; else `packed`.
  static Status Create(const std::string& path, ShardHeader header, ByteSpan metadata,
                       ModelPtr model, std::unique_ptr<ShardWriter>* out);

  // Takes all the sequences of the input, or none where one of them is not valid.
  Status Append(const SequenceInput& input);
  // What was appended before survives anything that happens after this has returned.
  Status Commit();
  // Commits, writes index and footer, and renames the file to `path`. The writer is then done.
  Status Finish(const std::string& path);

  // Whether the limits of a shard leave room for so much more; where not, Append refuses it.
  bool HasRoom(uint64_t num_positions, uint64_t num_sequences, uint64_t num_entries) const;

  const Totals& totals() const { return totals_; }
  uint64_t bytes_written() const { return file_->size(); }
  uint64_t uncommitted_bytes() const;
  const Uuid& uuid() const { return header_.uuid; }
  // Whether a parent process created it. Then it is not to be used, nor destroyed
  // (PrivateDescriptor).
  bool is_inherited() const { return file_->is_inherited(); }

 private:
  ShardWriter(const ShardHeader& header, ModelPtr model, std::unique_ptr<OutputFile> file);
  Status Begin(ByteSpan metadata);
  Status WriteBlocks(bool all);
  Status WriteBlock(size_t num_positions, size_t num_entries);
  Status WriteFrame(FrameHeader frame, ByteSpan content);
  Status WriteSequences(size_t first, size_t count);
  uint64_t IndexLength(uint64_t num_positions, uint64_t num_sequences, uint64_t num_entries) const;
  uint64_t TailLength() const;

  ShardHeader header_;
  std::unique_ptr<OutputFile> file_;
  CodecSet codecs_;
  ShardIndex index_;
  Totals totals_;  // of everything appended
  uint32_t chain_ = 0;
  uint32_t chain_at_commit_ = 0;
  uint64_t committed_size_ = 0;
  Status failure_;  // of an earlier write; nothing may follow it

  CanonicalSequences pending_;  // positions not yet in a block; sequences not yet in a SEQS frame
  size_t pending_position_ = 0, pending_entry_ = 0;  // what a block has taken already
};

// Appends index and footer after the frames that `index` describes, and renames the file.
// The end of a writer's work, and of a recovery.
Status SealShard(OutputFile* file, const ShardHeader& header, const ShardIndex& index,
                 const Totals& totals, uint32_t chain, const std::string& path);

// Appends a frame and extends `chain` with its frame_crc.
Status AppendFrame(OutputFile* file, const ShardHeader& header, const FrameHeader& frame,
                   ByteSpan content, uint32_t* chain, uint64_t* offset);

}  // namespace sparselogits
