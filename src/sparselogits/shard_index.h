// The map from positions and sequences to frames: built by a writer or a scan, stored in the INDX
// frame, read in place (formats/v1.md section 7).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "sparselogits/bytes.h"
#include "sparselogits/shard_layout.h"
#include "sparselogits/status.h"

namespace sparselogits {

// The index as it grows.
class ShardIndex {
 public:
  void AddBlock(uint64_t frame_offset, uint32_t num_positions);
  void AddSequence(uint32_t length);
  // REQUIRES: the sequences of the frame were added and start at index first_sequence.
  void AddSequenceFrame(uint64_t frame_offset, uint32_t first_sequence);

  uint64_t num_sequences() const { return sequence_starts_.size() - 1; }
  bool operator==(const ShardIndex&) const = default;

  uint64_t EncodedLength() const;
  Bytes Encode() const;

  // What each of these adds to the encoded length.
  static constexpr uint64_t kBytesPerBlock = 8;
  static constexpr uint64_t kBytesPerSequenceFrame = 8;
  static constexpr uint64_t kBytesPerSequenceStart = 4;

 private:
  std::vector<uint32_t> block_offsets_, block_starts_;
  std::vector<uint32_t> sequence_frame_offsets_, sequence_frame_starts_;
  std::vector<uint32_t> sequence_starts_ = {0};
  uint64_t next_block_start_ = 0;
};

// The index of a finished shard, read from the bytes of its INDX frame. Valid as long as they are.
class ShardIndexView {
 public:
  // Checks every array, so that what the accessors return lies inside the shard.
  Status Parse(ByteSpan content, const ShardHeader& shard, const Footer& footer);

  uint32_t num_blocks() const { return num_blocks_; }
  uint32_t num_sequences() const { return num_sequences_; }
  uint32_t num_sequence_frames() const { return num_sequence_frames_; }
  uint64_t block_offset(uint32_t block) const {
    return uint64_t{kFrameUnit} * At(block_offsets_, block);
  }
  // The first position of a block; of num_blocks(): the number of positions.
  uint64_t block_start(uint32_t block) const {
    return block == num_blocks_ ? num_positions_ : At(block_starts_, block);
  }
  uint64_t sequence_frame_offset(uint32_t frame) const {
    return uint64_t{kFrameUnit} * At(sequence_frame_offsets_, frame);
  }
  uint32_t sequence_frame_start(uint32_t frame) const {
    return frame == num_sequence_frames_ ? num_sequences_ : At(sequence_frame_starts_, frame);
  }
  uint64_t sequence_start(uint32_t sequence) const { return At(sequence_starts_, sequence); }

  // The block that holds a position. REQUIRES: position < num_positions.
  uint32_t FindBlock(uint64_t position, int block_log2) const;
  // The SEQS frame that holds a sequence. REQUIRES: sequence < num_sequences().
  uint32_t FindSequenceFrame(uint32_t sequence) const;
  // The sequences with data in frames of the file that start at first_offset .. last_offset - 1:
  // the first of them and the one after the last; equal where there are none.
  std::pair<uint32_t, uint32_t> SequencesInFrames(uint64_t first_offset,
                                                  uint64_t last_offset) const;

 private:
  static uint32_t At(const uint8_t* array, uint32_t i) { return Load32(array + size_t{4} * i); }

  uint32_t num_blocks_ = 0, num_sequence_frames_ = 0, num_sequences_ = 0;
  uint64_t num_positions_ = 0;
  const uint8_t* block_offsets_ = nullptr;
  const uint8_t* block_starts_ = nullptr;
  const uint8_t* sequence_frame_offsets_ = nullptr;
  const uint8_t* sequence_frame_starts_ = nullptr;
  const uint8_t* sequence_starts_ = nullptr;
};

}  // namespace sparselogits
