#include "sparselogits/shard_index.h"

#include <algorithm>
#include <string>

namespace sparselogits {
namespace {

constexpr size_t kCountsLength = 16;

// The last i in [first, count) with value(i) <= key. REQUIRES: value(first) <= key.
template <typename Value>
uint32_t LastNotAbove(uint32_t first, uint32_t count, uint64_t key, Value value) {
  uint32_t low = first;
  uint32_t high = count;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (value(middle) <= key ? low : high) = middle;
  }
  return low;
}

}  // namespace

void ShardIndex::AddBlock(uint64_t frame_offset, uint32_t num_positions) {
  block_offsets_.push_back(static_cast<uint32_t>(frame_offset / kFrameUnit));
  block_starts_.push_back(static_cast<uint32_t>(next_block_start_));
  next_block_start_ += num_positions;
}

void ShardIndex::AddSequence(uint32_t length) {
  sequence_starts_.push_back(sequence_starts_.back() + length);
}

void ShardIndex::AddSequenceFrame(uint64_t frame_offset, uint32_t first_sequence) {
  sequence_frame_offsets_.push_back(static_cast<uint32_t>(frame_offset / kFrameUnit));
  sequence_frame_starts_.push_back(first_sequence);
}

uint64_t ShardIndex::EncodedLength() const {
  return kCountsLength + kBytesPerBlock * block_offsets_.size() +
         kBytesPerSequenceFrame * sequence_frame_offsets_.size() +
         kBytesPerSequenceStart * sequence_starts_.size();
}

Bytes ShardIndex::Encode() const {
  Bytes out;
  out.reserve(EncodedLength());
  AppendLittle<uint32_t>(&out, static_cast<uint32_t>(block_offsets_.size()));
  AppendLittle<uint32_t>(&out, static_cast<uint32_t>(sequence_frame_offsets_.size()));
  AppendLittle<uint32_t>(&out, static_cast<uint32_t>(num_sequences()));
  AppendLittle<uint32_t>(&out, 0);
  for (const auto* array : {&block_offsets_, &block_starts_, &sequence_frame_offsets_,
                            &sequence_frame_starts_, &sequence_starts_})
    for (const uint32_t value : *array) AppendLittle<uint32_t>(&out, value);
  return out;
}

Status ShardIndexView::Parse(ByteSpan content, const ShardHeader& shard, const Footer& footer) {
  const auto bad = [](const char* field, size_t offset, const std::string& what) {
    return Status::Corruption(what).Field(field).At(static_cast<int64_t>(offset));
  };
  if (content.size() < kCountsLength)
    return bad("content_length", 0, "the index has " + std::to_string(content.size()) + " bytes");
  const uint8_t* const in = content.data();
  num_blocks_ = Load32(in);
  num_sequence_frames_ = Load32(in + 4);
  num_sequences_ = Load32(in + 8);
  num_positions_ = footer.totals.num_positions;
  if (Load32(in + 12) != 0) return bad("reserved", 12, "reserved bytes are not zero");
  if (num_sequences_ != footer.totals.num_sequences)
    return bad("num_sequences", 8,
               std::to_string(num_sequences_) + " in the index, " +
                   std::to_string(footer.totals.num_sequences) + " in the footer");
  const uint64_t numbers =
      2 * uint64_t{num_blocks_} + 2 * uint64_t{num_sequence_frames_} + num_sequences_ + 1;
  if (content.size() != kCountsLength + 4 * numbers)
    return bad("content_length", 0,
               "the index has " + std::to_string(content.size()) + " bytes, its counts need " +
                   std::to_string(kCountsLength + 4 * numbers));
  block_offsets_ = in + kCountsLength;
  block_starts_ = block_offsets_ + size_t{4} * num_blocks_;
  sequence_frame_offsets_ = block_starts_ + size_t{4} * num_blocks_;
  sequence_frame_starts_ = sequence_frame_offsets_ + size_t{4} * num_sequence_frames_;
  sequence_starts_ = sequence_frame_starts_ + size_t{4} * num_sequence_frames_;

  // Each array must ascend from `first`, strictly or not, and stay below `end`.
  const auto check = [&](const char* field, const uint8_t* array, uint64_t count, bool from_zero,
                         bool strictly, uint64_t end) -> Status {
    uint64_t least = 0;
    for (uint32_t i = 0; i < count; ++i) {
      const uint64_t value = At(array, i);
      if (value < least || value >= end || (i == 0 && from_zero && value != 0))
        return bad(field, static_cast<size_t>(array + size_t{4} * i - in),
                   "entry " + std::to_string(i) + " is " + std::to_string(value) +
                       ", out of order or not below " + std::to_string(end));
      least = value + (strictly ? 1 : 0);
    }
    return Status::Ok();
  };
  // A frame before the index leaves room for at least its own header.
  const uint64_t end_offset = (footer.index_offset - kFrameHeaderLength) / kFrameUnit + 1;
  SPARSELOGITS_RETURN_IF_ERROR(
      check("block_offsets", block_offsets_, num_blocks_, false, true, end_offset));
  SPARSELOGITS_RETURN_IF_ERROR(
      check("block_starts", block_starts_, num_blocks_, true, true, num_positions_));
  SPARSELOGITS_RETURN_IF_ERROR(check("sequence_frame_offsets", sequence_frame_offsets_,
                                     num_sequence_frames_, false, true, end_offset));
  SPARSELOGITS_RETURN_IF_ERROR(check("sequence_frame_starts", sequence_frame_starts_,
                                     num_sequence_frames_, true, true, num_sequences_));
  SPARSELOGITS_RETURN_IF_ERROR(check("sequence_starts", sequence_starts_,
                                     uint64_t{num_sequences_} + 1, true, false,
                                     num_positions_ + 1));
  if (sequence_start(num_sequences_) != num_positions_)
    return bad("sequence_starts", content.size() - 4,
               "the sequences end at position " + std::to_string(sequence_start(num_sequences_)) +
                   " of " + std::to_string(num_positions_));
  for (uint32_t block = 0; block < num_blocks_; ++block)
    if (block_start(block + 1) - block_start(block) > uint64_t{1} << shard.block_log2)
      return bad("block_starts", static_cast<size_t>(block_starts_ + size_t{4} * block - in),
                 "block " + std::to_string(block) + " has " +
                     std::to_string(block_start(block + 1) - block_start(block)) +
                     " positions, above the limit 2^" + std::to_string(shard.block_log2));
  if ((num_blocks_ == 0) != (num_positions_ == 0))
    return bad("num_blocks", 0,
               std::to_string(num_blocks_) + " blocks for " + std::to_string(num_positions_) +
                   " positions");
  if ((num_sequence_frames_ == 0) != (num_sequences_ == 0))
    return bad("num_sequence_frames", 4,
               std::to_string(num_sequence_frames_) + " frames for " +
                   std::to_string(num_sequences_) + " sequences");
  return Status::Ok();
}

uint32_t ShardIndexView::FindBlock(uint64_t position, int block_log2) const {
  // Exact where no block ended early; where some did, the block is at this place or later.
  const auto guess =
      static_cast<uint32_t>(std::min<uint64_t>(position >> block_log2, num_blocks_ - 1));
  if (block_start(guess) <= position && position < block_start(guess + 1)) return guess;
  return LastNotAbove(0, num_blocks_, position, [this](uint32_t i) { return block_start(i); });
}

uint32_t ShardIndexView::FindSequenceFrame(uint32_t sequence) const {
  return LastNotAbove(0, num_sequence_frames_, sequence,
                      [this](uint32_t i) { return sequence_frame_start(i); });
}

std::pair<uint32_t, uint32_t> ShardIndexView::SequencesInFrames(uint64_t first_offset,
                                                                uint64_t last_offset) const {
  const auto first_from = [](uint32_t count, uint64_t offset, auto value) {
    return count == 0 || value(0) >= offset ? 0 : LastNotAbove(0, count, offset - 1, value) + 1;
  };
  const auto block_at = [this](uint32_t i) { return block_offset(i); };
  const auto frame_at = [this](uint32_t i) { return sequence_frame_offset(i); };
  const auto sequence_at = [this](uint32_t i) { return sequence_start(i); };
  uint32_t first = num_sequences_, last = 0;
  const uint32_t block = first_from(num_blocks_, first_offset, block_at);
  const uint32_t block_end = first_from(num_blocks_, last_offset, block_at);
  if (block < block_end) {
    first = LastNotAbove(0, num_sequences_, block_start(block), sequence_at);
    last = LastNotAbove(0, num_sequences_, block_start(block_end) - 1, sequence_at) + 1;
  }
  const uint32_t frame = first_from(num_sequence_frames_, first_offset, frame_at);
  const uint32_t frame_end = first_from(num_sequence_frames_, last_offset, frame_at);
  if (frame < frame_end) {
    first = std::min(first, sequence_frame_start(frame));
    last = std::max(last, sequence_frame_start(frame_end));
  }
  return {std::min(first, last), last};
}

}  // namespace sparselogits
