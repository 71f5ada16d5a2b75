#include "sparselogits/shard_writer.h"

#include <algorithm>
#include <cerrno>

#include "sparselogits/compact_model.h"
#include "sparselogits/crc32c.h"
#include "sparselogits/limits.h"
#include "sparselogits/lz4_block.h"

namespace sparselogits {
namespace {

// The content as an LZ4 block; empty where that may not be, or does not pay.
Bytes Wrapped(const ShardHeader& header, FrameType type, ByteSpan content) {
  Bytes wrapped;
  const bool may_wrap = type != FrameType::kCommit && type != FrameType::kIndex &&
                        (header.incompatible_features & kFeatureLz4Frames) != 0 &&
                        CurrentLz4() != nullptr && !content.empty();
  // Worth it only from 3 % on (formats/v1.md section 4).
  if (!may_wrap || !CurrentLz4()->compress(content, &wrapped) ||
      wrapped.size() + content.size() * 3 / 100 >= content.size() ||
      content.size() > MaxLz4Ratio(type) * (wrapped.size() + 1))
    return {};
  return wrapped;
}

size_t PayloadLength(ByteSpan content, ByteSpan wrapped) {
  return wrapped.empty() ? content.size() : wrapped.size();
}

Status AppendPayload(OutputFile* file, const ShardHeader& header, FrameHeader frame,
                     ByteSpan content, ByteSpan wrapped, uint32_t* chain, uint64_t* offset) {
  frame.content_length = static_cast<uint32_t>(content.size());
  frame.wrapping = wrapped.empty() ? Wrapping::kNone : Wrapping::kLz4;
  const ByteSpan payload = wrapped.empty() ? content : wrapped;
  frame.payload_length = static_cast<uint32_t>(payload.size());
  Bytes bytes(kFrameHeaderLength);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  bytes.resize(kFrameHeaderLength + PaddedLength(payload.size()));
  frame.payload_crc = Crc32c(ByteSpan(bytes).subspan(kFrameHeaderLength));
  *offset = file->size();
  EncodeFrameHeader(&frame, header.uuid, *offset, bytes.data());
  uint8_t stored_crc[4];
  Store32(stored_crc, frame.frame_crc);
  *chain = ExtendCrc32c(*chain, stored_crc, sizeof(stored_crc));
  return file->Append(bytes);
}

}  // namespace

Status AppendFrame(OutputFile* file, const ShardHeader& header, const FrameHeader& frame,
                   ByteSpan content, uint32_t* chain, uint64_t* offset) {
  const Bytes wrapped = Wrapped(header, frame.type, content);
  return AppendPayload(file, header, frame, content, wrapped, chain, offset);
}

Status SealShard(OutputFile* file, const ShardHeader& header, const ShardIndex& index,
                 const Totals& totals, uint32_t chain, const std::string& path) {
  Footer footer;
  footer.totals = totals;
  footer.chain = chain;
  FrameHeader frame;
  frame.type = FrameType::kIndex;
  SPARSELOGITS_RETURN_IF_ERROR(
      AppendFrame(file, header, frame, index.Encode(), &chain, &footer.index_offset));
  footer.file_length = file->size() + kFooterLength;
  uint8_t bytes[kFooterLength];
  EncodeFooter(footer, header.uuid, bytes);
  SPARSELOGITS_RETURN_IF_ERROR(file->Append(bytes));
  return file->RenameTo(path);
}

ShardWriter::ShardWriter(const ShardHeader& header, ModelPtr model,
                         std::unique_ptr<OutputFile> file)
    : header_(header), file_(std::move(file)), codecs_(header.config.format, std::move(model)) {}

Status ShardWriter::Create(const std::string& path, ShardHeader header, ByteSpan metadata,
                           ModelPtr model, std::unique_ptr<ShardWriter>* out) {
  SPARSELOGITS_RETURN_IF_ERROR(CheckConfig(header.config));
  if (model != nullptr) {
    if (header.config.codec != CodecId::kCompact)
      return Status::InvalidArgument("model: the codec is not compact");
    if (const char* const field = FieldThatModelLacks(*model, header.config.format))
      return Status::InvalidArgument("model: it was made for another " + std::string(field));
    header.model_digest = model->digest();
    header.incompatible_features |= kFeatureCodecModel;
  }
  if (metadata.size() > kMaxMetadataLength)
    return Status::InvalidArgument("metadata: " + std::to_string(metadata.size()) +
                                   " bytes of JSON are above the limit 2^20");
  std::unique_ptr<OutputFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(OutputFile::Create(path, &file));
  std::unique_ptr<ShardWriter> writer(new ShardWriter(header, std::move(model), std::move(file)));
  const Status status = writer->Begin(metadata);
  if (status.ok())
    *out = std::move(writer);
  else
    static_cast<void>(RemoveFile(path));
  return status;
}

Status ShardWriter::Begin(ByteSpan metadata) {
  uint8_t bytes[kHeaderLength];
  EncodeHeader(header_, bytes);
  SPARSELOGITS_RETURN_IF_ERROR(file_->Append(bytes));
  // Recovery relies on it: whatever is longer than a header has a sound one, or is damaged.
  SPARSELOGITS_RETURN_IF_ERROR(file_->Sync());
  FrameHeader frame;
  frame.type = FrameType::kMetadata;
  return WriteFrame(frame, metadata);
}

Status ShardWriter::WriteFrame(FrameHeader frame, ByteSpan content) {
  uint64_t offset = 0;
  failure_ = AppendFrame(file_.get(), header_, frame, content, &chain_, &offset);
  return failure_;
}

bool ShardWriter::HasRoom(uint64_t num_positions, uint64_t num_sequences,
                          uint64_t num_entries) const {
  // Each of the three is compared before anything is added: callers may ask for any number.
  return num_positions <= kMaxPositionsPerShard - totals_.num_positions &&
         num_sequences <= kMaxSequencesPerShard - totals_.num_sequences &&
         num_entries <= kMaxEntriesPerShard - totals_.num_entries &&
         IndexLength(num_positions, num_sequences, num_entries) <= kMaxFrameLength;
}

// The length of INDX at most, if so much more were appended and then committed.
uint64_t ShardWriter::IndexLength(uint64_t num_positions, uint64_t num_sequences,
                                  uint64_t num_entries) const {
  const uint64_t positions = num_positions + pending_.entries.size();
  const uint64_t entries = num_entries + pending_.token_ids.size();
  const uint64_t sequences = num_sequences + pending_.lengths.size();
  const uint64_t blocks = (positions >> header_.block_log2) + entries / kEntriesThatEndABlock + 1;
  return index_.EncodedLength() + blocks * ShardIndex::kBytesPerBlock +
         (sequences / kMaxSequencesPerFrame + 1) * ShardIndex::kBytesPerSequenceFrame +
         sequences * ShardIndex::kBytesPerSequenceStart;
}

// What must still fit behind the blocks: SEQS frames of the pending sequences, CMIT, INDX, footer.
uint64_t ShardWriter::TailLength() const {
  const uint64_t sequences = pending_.lengths.size();
  constexpr uint64_t kPaddedFrame = kFrameHeaderLength + kFrameAlignment;
  return sequences * kBytesPerSequence + (sequences / kMaxSequencesPerFrame + 1) * kPaddedFrame +
         kPaddedFrame + kCommitLength + kPaddedFrame + IndexLength(0, 0, 0) + kFooterLength;
}

uint64_t ShardWriter::uncommitted_bytes() const {
  // Pending entries are counted at about what they will cost.
  return file_->size() - committed_size_ + (pending_.token_ids.size() - pending_entry_) * 2 +
         pending_.lengths.size() * kBytesPerSequence;
}

Status ShardWriter::Append(const SequenceInput& input) {
  SPARSELOGITS_RETURN_IF_ERROR(failure_);
  CanonicalSequences sequences;
  SPARSELOGITS_RETURN_IF_ERROR(Canonicalise(input, header_.config.format, &sequences));
  if (!HasRoom(sequences.tokens.size(), sequences.lengths.size(), sequences.token_ids.size()))
    return Status::InvalidArgument(
        "the shard has no room for this: its limits are 2^32 - 1 positions, 2^28 sequences, 2^40 "
        "entries and an index of 2^30 bytes");
  totals_.num_positions += sequences.tokens.size();
  totals_.num_sequences += sequences.lengths.size();
  totals_.num_entries += sequences.token_ids.size();
  pending_.Append(sequences);
  return WriteBlocks(/*all=*/false);
}

Status ShardWriter::WriteBlocks(bool all) {
  const size_t full = size_t{1} << header_.block_log2;
  const size_t num_positions = pending_.entries.size();
  for (size_t position = pending_position_, entries = 0; position < num_positions; ++position) {
    entries += pending_.entries[position];
    const size_t positions = position + 1 - pending_position_;
    const bool last = all && position + 1 == num_positions;
    if (positions == full || entries >= kEntriesThatEndABlock || last) {
      SPARSELOGITS_RETURN_IF_ERROR(WriteBlock(positions, entries));
      entries = 0;
    }
  }
  pending_.DropPositions(pending_position_, pending_entry_);
  pending_position_ = pending_entry_ = 0;
  return Status::Ok();
}

Status ShardWriter::WriteBlock(size_t num_positions, size_t num_entries) {
  const BlockView block =
      pending_.view().Slice(pending_position_, num_positions, pending_entry_, num_entries);
  FrameHeader frame;
  frame.type = FrameType::kBlock;
  Bytes content;
  codecs_.of(CodecId::kPacked).Encode(block, &content);
  Bytes wrapped = Wrapped(header_, FrameType::kBlock, content);
  Bytes compact;
  if (codecs_.has(CodecId::kCompact) && codecs_.of(CodecId::kCompact).Encode(block, &compact)) {
    Bytes wrapped_compact = Wrapped(header_, FrameType::kBlock, compact);
    if (PayloadLength(compact, wrapped_compact) < PayloadLength(content, wrapped)) {
      content = std::move(compact);
      wrapped = std::move(wrapped_compact);
      frame.codec = CodecId::kCompact;
    }
  }
  frame.num_items = static_cast<uint32_t>(num_positions);
  frame.num_entries = static_cast<uint32_t>(num_entries);
  uint64_t offset = file_->size();
  if (offset + kFrameHeaderLength + PaddedLength(content.size()) + TailLength() > kMaxShardLength)
    return failure_ =
               Status::Io("the shard is full: its limit is 2^35 bytes", EFBIG).In(file_->path());
  failure_ = AppendPayload(file_.get(), header_, frame, content, wrapped, &chain_, &offset);
  SPARSELOGITS_RETURN_IF_ERROR(failure_);
  index_.AddBlock(offset, frame.num_items);
  pending_position_ += num_positions;
  pending_entry_ += num_entries;
  return Status::Ok();
}

Status ShardWriter::Commit() {
  SPARSELOGITS_RETURN_IF_ERROR(failure_);
  SPARSELOGITS_RETURN_IF_ERROR(WriteBlocks(/*all=*/true));
  for (size_t first = 0; first < pending_.lengths.size(); first += kMaxSequencesPerFrame)
    SPARSELOGITS_RETURN_IF_ERROR(WriteSequences(
        first, std::min<size_t>(kMaxSequencesPerFrame, pending_.lengths.size() - first)));
  pending_ = {};
  if (committed_size_ != file_->size()) {
    uint8_t content[kCommitLength];
    chain_at_commit_ = chain_;
    EncodeCommit(totals_, chain_, content);
    FrameHeader frame;
    frame.type = FrameType::kCommit;
    SPARSELOGITS_RETURN_IF_ERROR(WriteFrame(frame, content));
    failure_ = file_->Sync();
    if (!failure_.ok()) {
      // Were this commit left in the file, a recovery would find it in the kernel's memory and call
      // it safe. If it cannot be cut off either, the first failure is the one to report.
      static_cast<void>(file_->Truncate(std::max<uint64_t>(committed_size_, kHeaderLength)));
      return failure_;
    }
    committed_size_ = file_->size();
  }
  return Status::Ok();
}

// One SEQS frame of pending sequences.
Status ShardWriter::WriteSequences(size_t first, size_t count) {
  Bytes content;
  content.reserve(count * kBytesPerSequence);
  for (const uint64_t id : std::span(pending_.sequence_ids).subspan(first, count))
    AppendLittle<uint64_t>(&content, id);
  for (const uint64_t fingerprint : std::span(pending_.fingerprints).subspan(first, count))
    AppendLittle<uint64_t>(&content, fingerprint);
  const auto lengths = std::span(pending_.lengths).subspan(first, count);
  for (const uint32_t length : lengths) AppendLittle<uint32_t>(&content, length);
  FrameHeader frame;
  frame.type = FrameType::kSequences;
  frame.num_items = static_cast<uint32_t>(count);
  const uint64_t offset = file_->size();
  SPARSELOGITS_RETURN_IF_ERROR(WriteFrame(frame, content));
  index_.AddSequenceFrame(offset, static_cast<uint32_t>(index_.num_sequences()));
  for (const uint32_t length : lengths) index_.AddSequence(length);
  return Status::Ok();
}

Status ShardWriter::Finish(const std::string& path) {
  SPARSELOGITS_RETURN_IF_ERROR(Commit());
  failure_ = SealShard(file_.get(), header_, index_, totals_, chain_at_commit_, path);
  return failure_;
}

}  // namespace sparselogits
