#include "sparselogits/shard_reader.h"

#include <algorithm>
#include <utility>

#include "sparselogits/shard_codecs.h"

namespace sparselogits {

Status ShardReader::Open(const std::string& path, const Models& models, CheckPayload check_payloads,
                         std::unique_ptr<ShardReader>* out) {
  std::unique_ptr<MappedFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  return Open(std::move(file), models, check_payloads, out);
}

Status ShardReader::Open(std::shared_ptr<const MappedFile> file, const Models& models,
                         CheckPayload check_payloads, std::unique_ptr<ShardReader>* out) {
  std::unique_ptr<ShardReader> reader(new ShardReader(std::move(file), check_payloads));
  // A cache has thousands of shards, of which a page or two are looked at here.
  reader->file_->ReadAhead(false);
  SPARSELOGITS_RETURN_IF_ERROR(reader->Validate(models).In(reader->path()));
  reader->file_->ReadAhead(true);
  *out = std::move(reader);
  return Status::Ok();
}

Status ShardReader::Validate(const Models& models) {
  const ByteSpan file = file_->bytes();
  if (file.size() < kHeaderLength)
    return Status::Truncated("the file has " + std::to_string(file.size()) +
                             " bytes, fewer than a header")
        .Field("header")
        .At(0);
  SPARSELOGITS_RETURN_IF_ERROR(DecodeHeader(file, &header_));
  SPARSELOGITS_RETURN_IF_ERROR(MakeCodecs(header_, models, &codecs_));
  if (file.size() < kHeaderLength + kFrameHeaderLength + kFooterLength)
    return Status::Truncated("the file has " + std::to_string(file.size()) +
                             " bytes, too few for a shard")
        .Field("footer")
        .At(static_cast<int64_t>(file.size()));
  const uint64_t footer_offset = file.size() - kFooterLength;
  const auto at_footer = [&](int64_t field) { return static_cast<int64_t>(footer_offset) + field; };
  SPARSELOGITS_RETURN_IF_ERROR(DecodeFooter(file.subspan(footer_offset), header_.uuid, &footer_)
                                   .Shift(static_cast<int64_t>(footer_offset)));
  if (footer_.file_length != file.size())
    return Status::Corruption("the footer says " + std::to_string(footer_.file_length) +
                              " bytes, the file has " + std::to_string(file.size()))
        .Field("file_length")
        .At(at_footer(16));
  if (footer_.index_offset < kHeaderLength || footer_.index_offset % kFrameAlignment != 0 ||
      footer_.index_offset > footer_offset - kFrameHeaderLength)
    return Status::Corruption("the footer points to byte " + std::to_string(footer_.index_offset) +
                              " for the index")
        .Field("index_offset")
        .At(at_footer(8));
  file_->WillTouch(footer_.index_offset, footer_offset - footer_.index_offset);
  Frame frame;
  SPARSELOGITS_RETURN_IF_ERROR(
      ReadFrame(file, footer_offset, header_, footer_.index_offset, CheckPayload::kYes, &frame));
  const auto index_at = static_cast<int64_t>(footer_.index_offset);
  if (frame.header.type != FrameType::kIndex)
    return Status::Corruption("the frame that the footer points to is not an index")
        .Field("type")
        .At(index_at);
  if (footer_.index_offset + frame.header.frame_length() != footer_offset)
    return Status::Corruption("there are bytes between the index and the footer")
        .Field("payload_length")
        .At(index_at + 8);
  SPARSELOGITS_RETURN_IF_ERROR(
      index_.Parse(frame.content, header_, footer_).Shift(index_at + int64_t{kFrameHeaderLength}));
  touched_ = std::make_unique<std::atomic<bool>[]>(index_.num_blocks());
  return Status::Ok();
}

Status ShardReader::ReadMetadata(Bytes* metadata) const {
  Frame frame;
  SPARSELOGITS_RETURN_IF_ERROR(
      ReadFrame(bytes(), footer_.index_offset, header_, kHeaderLength, CheckPayload::kYes, &frame)
          .In(path()));
  if (frame.header.type != FrameType::kMetadata)
    return Status::Corruption("the first frame is not the metadata")
        .Field("type")
        .At(int64_t{kHeaderLength})
        .In(path());
  metadata->assign(frame.content.begin(), frame.content.end());
  return Status::Ok();
}

Status ShardReader::BlockContent(uint32_t block, ByteSpan* content,
                                 std::shared_ptr<const Frame>* holder) const {
  const uint64_t offset = index_.block_offset(block);
  if (touched_[block].load(std::memory_order_acquire)) {
    // Checked before: the length alone is needed.
    *content = bytes().subspan(offset + kFrameHeaderLength, Load32(bytes().data() + offset + 8));
    return Status::Ok();
  }
  if (const std::unique_lock lock(unwrapped_mutex_, std::try_to_lock);
      lock.owns_lock() && unwrapped_ != nullptr && unwrapped_->offset == offset)
    *holder = unwrapped_;
  if (*holder == nullptr) {
    auto frame = std::make_shared<Frame>();
    SPARSELOGITS_RETURN_IF_ERROR(
        ReadFrame(bytes(), footer_.index_offset, header_, offset, check_payloads_, frame.get()));
    const uint64_t positions = index_.block_start(block + 1) - index_.block_start(block);
    if (frame->header.type != FrameType::kBlock || frame->header.num_items != positions)
      return Status::Corruption("the index says " + std::to_string(positions) +
                                " positions in a block here; the frame is not such a block")
          .Field("num_items")
          .At(static_cast<int64_t>(offset) + 16);
    if (frame->header.wrapping == Wrapping::kNone) {
      *content = frame->content;
      touched_[block].store(true, std::memory_order_release);
      return Status::Ok();
    }
    *holder = std::move(frame);
    std::shared_ptr<const Frame> dropped;  // freed after the mutex is free again
    if (const std::unique_lock lock(unwrapped_mutex_, std::try_to_lock); lock.owns_lock())
      dropped = std::exchange(unwrapped_, *holder);
  }
  *content = (*holder)->content;
  return Status::Ok();
}

Status ShardReader::ReadPositions(uint64_t first, uint64_t last, RecordBatch* batch,
                                  int32_t* tokens) const {
  if (first == last) return Status::Ok();
  const bool read_tokens = tokens != nullptr && header_.config.format.store_tokens;
  for (uint32_t block = index_.FindBlock(first, header_.block_log2); first < last; ++block) {
    const uint64_t start = index_.block_start(block);
    const uint64_t end = index_.block_start(block + 1);
    ByteSpan content;
    std::shared_ptr<const Frame> holder;
    SPARSELOGITS_RETURN_IF_ERROR(BlockContent(block, &content, &holder).In(path()));
    const auto from = static_cast<uint32_t>(first - start);
    const auto to = static_cast<uint32_t>(std::min(last, end) - start);
    const auto positions = static_cast<uint32_t>(end - start);
    const auto codec = static_cast<CodecId>(bytes()[index_.block_offset(block) + kCodecOffset]);
    Status status = codecs_->of(codec).Decode(content, positions, from, to, batch,
                                              read_tokens ? tokens : nullptr);
    if (!status.ok()) {
      const auto offset = static_cast<int64_t>(index_.block_offset(block));
      return std::move(status)
          .Shift(holder == nullptr ? offset + int64_t{kFrameHeaderLength}
                                   : offset - status.offset())
          .In(path());
    }
    if (read_tokens) tokens += to - from;
    first += to - from;
  }
  return Status::Ok();
}

Status ShardReader::ReadSequenceFrame(uint32_t frame_number, Frame* frame) const {
  const uint64_t offset = index_.sequence_frame_offset(frame_number);
  SPARSELOGITS_RETURN_IF_ERROR(
      ReadFrame(bytes(), footer_.index_offset, header_, offset, check_payloads_, frame).In(path()));
  const uint32_t n =
      index_.sequence_frame_start(frame_number + 1) - index_.sequence_frame_start(frame_number);
  if (frame->header.type != FrameType::kSequences || frame->header.num_items != n)
    return Status::Corruption("the index says " + std::to_string(n) +
                              " sequences in a frame here; the frame is not such a frame")
        .Field("num_items")
        .At(static_cast<int64_t>(offset) + 16)
        .In(path());
  return Status::Ok();
}

// A frame that is wrapped is shorter than one that is not.
std::pair<uint64_t, uint64_t> ShardReader::SequenceFrameRange(uint32_t frame_number) const {
  const uint64_t offset = index_.sequence_frame_offset(frame_number);
  const uint64_t sequences =
      index_.sequence_frame_start(frame_number + 1) - index_.sequence_frame_start(frame_number);
  const uint64_t length = kFrameHeaderLength + PaddedLength(kBytesPerSequence * sequences);
  return {offset, std::min(offset + length, footer_.index_offset)};
}

Status ShardReader::ReadSequenceTable(SequenceInfo* out) const {
  for (uint32_t i = 0; i < index_.num_sequence_frames(); ++i) {
    Frame frame;
    SPARSELOGITS_RETURN_IF_ERROR(ReadSequenceFrame(i, &frame));
    const uint32_t first = index_.sequence_frame_start(i);
    const uint32_t n = frame.header.num_items;
    const uint8_t* const ids = frame.content.data();
    for (size_t j = 0; j < n; ++j) {
      const uint64_t length = Load32(ids + 16 * size_t{n} + 4 * j);
      const uint32_t sequence = first + static_cast<uint32_t>(j);
      if (length != index_.sequence_start(sequence + 1) - index_.sequence_start(sequence))
        return Status::Corruption("the length of sequence " + std::to_string(sequence) +
                                  " differs between its SEQS frame and the index")
            .Field("length")
            .At(static_cast<int64_t>(frame.offset))
            .In(path());
      *out++ = {Load64(ids + 8 * j), Load64(ids + 8 * size_t{n} + 8 * j)};
    }
  }
  return Status::Ok();
}

Status ShardReader::Sequences(std::span<const SequenceInfo>* out) const {
  const std::vector<SequenceInfo>* known = sequences_.load(std::memory_order_acquire);
  if (known == nullptr) {
    auto read = std::make_unique<std::vector<SequenceInfo>>(index_.num_sequences());
    SPARSELOGITS_RETURN_IF_ERROR(ReadSequenceTable(read->data()));
    if (sequences_.compare_exchange_strong(known, read.get(), std::memory_order_acq_rel))
      known = read.release();
  }
  *out = *known;
  return Status::Ok();
}

}  // namespace sparselogits
