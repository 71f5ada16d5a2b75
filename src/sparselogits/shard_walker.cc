#include "sparselogits/shard_walker.h"

#include <algorithm>
#include <string>

#include "sparselogits/crc32c.h"
#include "sparselogits/limits.h"
#include "sparselogits/shard_codecs.h"
#include "sparselogits/xxh64.h"

namespace sparselogits {

ShardWalker::ShardWalker(ByteSpan file, WalkDepth depth, Models models)
    : file_(file), depth_(depth), models_(std::move(models)) {}

Status ShardWalker::Walk(uint64_t end, const Progress& progress, const OnFault& on_fault) {
  if (file_.size() < kHeaderLength)
    return Status::Truncated("the file has " + std::to_string(file_.size()) +
                             " bytes, fewer than a header")
        .Field("header")
        .At(0);
  SPARSELOGITS_RETURN_IF_ERROR(DecodeHeader(file_, &header_));
  if (depth_ == WalkDepth::kRecords)
    SPARSELOGITS_RETURN_IF_ERROR(MakeCodecs(header_, models_, &codecs_));
  for (uint64_t offset = kHeaderLength; offset < end;) {
    Frame frame;
    Status fault = TakeFrameAt(offset, end, &frame);
    if (!fault.ok()) {
      if (!on_fault) return fault;
      const uint64_t next = NextFrame(offset, end);
      if (!on_fault(offset, next, std::move(fault))) return Status::Ok();
      group_is_damaged_ = true;
      seen_metadata_ = true;
      offset = next;
      continue;
    }
    offset += frame.header.frame_length();
    if (frame.header.type == FrameType::kCommit) {
      committed_end_ = offset;
      if (progress) progress(offset);
    }
  }
  return Status::Ok();
}

Status ShardWalker::TakeFrameAt(uint64_t offset, uint64_t end, Frame* frame) {
  SPARSELOGITS_RETURN_IF_ERROR(ReadFrame(file_, end, header_, offset, CheckPayload::kYes, frame));
  Status status = Take(*frame);
  if (status.ok()) return status;
  if (status.offset() < 0) return std::move(status).At(static_cast<int64_t>(offset));
  // Offsets inside an LZ4 block have no place in the file: the frame has.
  const bool wrapped = frame->header.wrapping != Wrapping::kNone;
  return std::move(status).Shift(wrapped ? static_cast<int64_t>(offset) - status.offset()
                                         : static_cast<int64_t>(offset + kFrameHeaderLength));
}

// Where the walk goes on behind a fault: after the frame, if its header can be trusted, else at the
// next place that holds a frame header.
uint64_t ShardWalker::NextFrame(uint64_t offset, uint64_t end) const {
  FrameHeader frame;
  const uint64_t found = FindFrame(file_, end, header_, offset, &frame);
  return found == offset ? std::min(end, offset + frame.frame_length()) : found;
}

Status ShardWalker::Take(const Frame& frame) {
  if ((frame.header.type == FrameType::kMetadata) == seen_metadata_)
    return Status::Corruption(seen_metadata_ ? "a second metadata frame"
                                             : "the first frame is not the metadata")
        .Field("type");
  uint8_t stored_crc[4];
  Store32(stored_crc, frame.header.frame_crc);
  const uint32_t chain_before = chain_;
  chain_ = ExtendCrc32c(chain_, stored_crc, sizeof(stored_crc));
  const bool is_wrapped = frame.header.wrapping != Wrapping::kNone;
  const uint64_t payload_bits = uint64_t{frame.header.payload_length} * 8;
  sections_.frame_headers += kFrameHeaderLength * 8;
  sections_.padding += PaddedLength(frame.header.payload_length) * 8 - payload_bits;
  if (is_wrapped)
    (frame.header.type == FrameType::kBlock ? sections_.wrapped_blocks
                                            : sections_.wrapped_others) += payload_bits;
  FrameSections inside_wrapping;  // exists nowhere in the file
  FrameSections* const sections = is_wrapped ? &inside_wrapping : &sections_;
  switch (frame.header.type) {
    case FrameType::kMetadata:
      seen_metadata_ = true;
      metadata_.assign(frame.content.begin(), frame.content.end());
      sections->metadata += frame.content.size() * 8;
      return Status::Ok();
    case FrameType::kBlock:
      if (depth_ == WalkDepth::kRecords)
        SPARSELOGITS_RETURN_IF_ERROR(codecs_->of(frame.header.codec)
                                         .Check(frame.content, frame.header.num_items,
                                                frame.header.num_entries, &sections->block));
      return TakeBlock(frame);
    case FrameType::kSequences:
      sections->sequence_ids += uint64_t{frame.header.num_items} * 64;
      sections->fingerprints += uint64_t{frame.header.num_items} * 64;
      sections->lengths += uint64_t{frame.header.num_items} * 32;
      return TakeSequences(frame);
    case FrameType::kCommit:
      sections->commits += kCommitLength * 8;
      commit_chain_ = chain_before;
      return TakeCommit(frame);
    case FrameType::kIndex: break;
  }
  return Status::Corruption("an index before the end of the frames").Field("type");
}

Status ShardWalker::TakeBlock(const Frame& frame) {
  const uint32_t positions = frame.header.num_items;
  if (totals_.num_positions + positions > kMaxPositionsPerShard)
    return Status::Corruption("more positions than the limit 2^32 - 1").Field("num_items");
  if (totals_.num_entries + frame.header.num_entries > kMaxEntriesPerShard)
    return Status::Corruption("more entries than the limit 2^40").Field("num_entries");
  index_.AddBlock(frame.offset, positions);
  totals_.num_positions += positions;
  totals_.num_entries += frame.header.num_entries;
  if (!ChecksFingerprints()) return Status::Ok();
  std::vector<int32_t> tokens(positions);
  SPARSELOGITS_RETURN_IF_ERROR(
      codecs_->of(frame.header.codec)
          .DecodeTokens(frame.content, positions, 0, positions, tokens.data()));
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  return Status::Ok();
}

Status ShardWalker::TakeSequences(const Frame& frame) {
  const size_t n = frame.header.num_items;
  const uint8_t* const ids = frame.content.data();
  const uint8_t* const fingerprints = ids + 8 * n;
  const uint8_t* const lengths = fingerprints + 8 * n;
  if (totals_.num_sequences + n > kMaxSequencesPerShard)
    return Status::Corruption("more sequences than the limit 2^28").Field("num_items");
  size_t token = 0;
  for (size_t i = 0; i < n; ++i) {
    const uint64_t id = Load64(ids + 8 * i);
    const uint32_t length = Load32(lengths + 4 * i);
    if (!group_is_damaged_ && sequence_positions_ + length > totals_.num_positions)
      return Status::Corruption("sequence_id " + std::to_string(id) +
                                " is longer than the positions that are stored")
          .Field("length")
          .At(static_cast<int64_t>(16 * n + 4 * i));
    if (ChecksFingerprints()) {
      const uint64_t found = FingerprintTokens(std::span(tokens_).subspan(token, length));
      if (found != Load64(fingerprints + 8 * i))
        return Status::Corruption("the stored tokens of sequence_id " + std::to_string(id) +
                                  " do not have its fingerprint")
            .Field("fingerprint")
            .At(static_cast<int64_t>(8 * n + 8 * i));
      token += length;
    }
    index_.AddSequence(length);
    sequence_positions_ += length;
    sequence_ids_.push_back(id);
  }
  tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<ptrdiff_t>(token));
  index_.AddSequenceFrame(frame.offset, static_cast<uint32_t>(totals_.num_sequences));
  totals_.num_sequences += n;
  return Status::Ok();
}

Status ShardWalker::TakeCommit(const Frame& frame) {
  Totals stated;
  uint32_t chain = 0;
  SPARSELOGITS_RETURN_IF_ERROR(DecodeCommit(frame.content, &stated, &chain));
  if (group_is_damaged_) {
    ResumeAfter(frame, stated, chain);
    return Status::Ok();
  }
  if (chain != commit_chain_)
    return Status::Corruption(
               "the chain does not match: a frame before this commit is missing, "
               "repeated or out of place")
        .Field("chain")
        .At(24);
  if (stated.num_positions != totals_.num_positions || stated.num_positions != sequence_positions_)
    return Status::Corruption("the commit states " + std::to_string(stated.num_positions) +
                              " positions, the blocks hold " +
                              std::to_string(totals_.num_positions) + ", the sequences " +
                              std::to_string(sequence_positions_))
        .Field("num_positions")
        .At(0);
  if (stated.num_sequences != totals_.num_sequences)
    return Status::Corruption("the commit states " + std::to_string(stated.num_sequences) +
                              " sequences, the shard holds " +
                              std::to_string(totals_.num_sequences))
        .Field("num_sequences")
        .At(8);
  if (stated.num_entries != totals_.num_entries)
    return Status::Corruption("the commit states " + std::to_string(stated.num_entries) +
                              " entries, the shard holds " + std::to_string(totals_.num_entries))
        .Field("num_entries")
        .At(16);
  return Status::Ok();
}

// A commit states all that is needed to trust the groups after it again.
void ShardWalker::ResumeAfter(const Frame& commit, const Totals& stated, uint32_t chain) {
  uint8_t stored_crc[4];
  Store32(stored_crc, commit.header.frame_crc);
  totals_ = stated;
  sequence_positions_ = stated.num_positions;
  chain_ = ExtendCrc32c(chain, stored_crc, sizeof(stored_crc));
  commit_chain_ = chain;
  tokens_.clear();
  group_is_damaged_ = false;
}

}  // namespace sparselogits
