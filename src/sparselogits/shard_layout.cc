#include "sparselogits/shard_layout.h"

#include <algorithm>
#include <cstring>

#include "sparselogits/crc32c.h"
#include "sparselogits/layout_checks.h"

namespace sparselogits {
namespace {

constexpr uint8_t kFooterMagic[8] = {'S', 'L', 'C', 'F', 'O', 'O', 'T', '1'};

uint32_t FrameCrc(const Uuid& uuid, uint64_t offset, const uint8_t* frame) {
  uint8_t place[sizeof(uint64_t)];
  Store64(place, offset);
  uint32_t crc = ExtendCrc32c(0, uuid.data(), uuid.size());
  crc = ExtendCrc32c(crc, place, sizeof(place));
  return ExtendCrc32c(crc, frame, kFrameHeaderLength - 4);
}

// The most that the content of a frame may be, whatever it claims.
uint64_t MaxContentLength(FrameType type) {
  switch (type) {
    case FrameType::kMetadata: return kMaxMetadataLength;
    case FrameType::kBlock: return kMaxBlockLength;
    case FrameType::kSequences: return uint64_t{kMaxSequencesPerFrame} * kBytesPerSequence;
    case FrameType::kCommit: return kCommitLength;
    case FrameType::kIndex: break;
  }
  return kMaxFrameLength;
}

// Offsets are relative to the first of the three fields.
Status CheckTotals(const Totals& totals) {
  const auto above = [](const char* field, int64_t at, uint64_t value, const char* limit) {
    return BadField(field, at, std::to_string(value) + " is above the limit " + limit);
  };
  if (totals.num_positions > kMaxPositionsPerShard)
    return above("num_positions", 0, totals.num_positions, "2^32 - 1");
  if (totals.num_sequences > kMaxSequencesPerShard)
    return above("num_sequences", 8, totals.num_sequences, "2^28");
  if (totals.num_entries > kMaxEntriesPerShard)
    return above("num_entries", 16, totals.num_entries, "2^40");
  return Status::Ok();
}

}  // namespace

void EncodeFrameHeader(FrameHeader* frame, const Uuid& uuid, uint64_t offset, uint8_t* out) {
  std::memset(out, 0, kFrameHeaderLength);
  Store32(out, static_cast<uint32_t>(frame->type));
  out[kCodecOffset] = static_cast<uint8_t>(frame->codec);
  out[5] = static_cast<uint8_t>(frame->wrapping);
  Store32(out + 8, frame->payload_length);
  Store32(out + 12, frame->content_length);
  Store32(out + 16, frame->num_items);
  Store32(out + 20, frame->num_entries);
  Store32(out + 24, frame->payload_crc);
  frame->frame_crc = FrameCrc(uuid, offset, out);
  Store32(out + 28, frame->frame_crc);
}

Status DecodeFrameHeader(ByteSpan bytes, const ShardHeader& shard, uint64_t offset,
                         FrameHeader* frame) {
  const uint8_t* const in = bytes.data();
  const auto bad = [offset](const char* field, int at, const std::string& what) {
    return BadField(field, static_cast<int64_t>(offset) + at, what);
  };
  frame->frame_crc = Load32(in + 28);
  if (frame->frame_crc != FrameCrc(shard.uuid, offset, in))
    return bad("frame_crc", 28,
               "the frame header's checksum does not match: flipped bits, or a frame that was "
               "written elsewhere");
  frame->type = static_cast<FrameType>(Load32(in));
  frame->codec = static_cast<CodecId>(in[kCodecOffset]);
  frame->wrapping = static_cast<Wrapping>(in[5]);
  frame->payload_length = Load32(in + 8);
  frame->content_length = Load32(in + 12);
  frame->num_items = Load32(in + 16);
  frame->num_entries = Load32(in + 20);
  frame->payload_crc = Load32(in + 24);

  bool has_items = false;
  switch (frame->type) {
    case FrameType::kBlock:
    case FrameType::kSequences: has_items = true; break;
    case FrameType::kMetadata:
    case FrameType::kCommit:
    case FrameType::kIndex: break;
    default: return bad("type", 0, "not a frame type of version 1");
  }
  if (frame->wrapping > Wrapping::kLz4)
    return bad("wrapping", 5, std::to_string(in[5]) + " is not a wrapping of version 1");
  if (frame->wrapping == Wrapping::kLz4 &&
      ((shard.incompatible_features & kFeatureLz4Frames) == 0 ||
       frame->type == FrameType::kCommit || frame->type == FrameType::kIndex))
    return bad("wrapping", 5, "an LZ4-wrapped frame where none is allowed");
  if (Load16(in + 6) != 0) return bad("reserved", 6, "reserved bytes are not zero");
  if (frame->payload_length > kMaxFrameLength)
    return bad("payload_length", 8, std::to_string(frame->payload_length) + " is above 2^30");
  if (frame->wrapping == Wrapping::kNone && frame->content_length != frame->payload_length)
    return bad("content_length", 12, "differs from payload_length in a frame without wrapping");
  const uint64_t longest_content = MaxContentLength(frame->type);
  if (frame->content_length > longest_content)
    return bad("content_length", 12,
               std::to_string(frame->content_length) + " is above " +
                   std::to_string(longest_content) + ", the limit of such a frame");
  if (frame->wrapping == Wrapping::kLz4) {
    if (frame->content_length > MaxLz4Ratio(frame->type) * (uint64_t{frame->payload_length} + 1))
      return bad("content_length", 12,
                 std::to_string(frame->content_length) + " is more than an LZ4 block of " +
                     std::to_string(frame->payload_length) + " bytes may hold in such a frame");
  }
  if (has_items != (frame->num_items > 0))
    return bad("num_items", 16, std::to_string(frame->num_items) + " in a frame of this type");
  if (frame->type != FrameType::kBlock) {
    if (in[4] != 0) return bad("codec", 4, "not zero in a frame that is not a block");
    if (frame->num_entries != 0)
      return bad("num_entries", 20, "not zero in a frame that is not a block");
  } else {
    if (!IsKnownCodec(frame->codec))
      return Status::Unsupported("block codec " + std::to_string(in[4]) +
                                 " is not known to this release: use a newer sparselogits")
          .Field("codec")
          .At(static_cast<int64_t>(offset) + 4);
    if (frame->codec == CodecId::kCompact && shard.model_digest == 0)
      return bad("codec", 4, "a compact block in a shard without a model");
    if (frame->num_items > (1u << shard.block_log2))
      return bad("num_items", 16,
                 std::to_string(frame->num_items) + " positions in a block of at most " +
                     std::to_string(1u << shard.block_log2));
    const uint64_t most =
        std::min<uint64_t>(kMaxEntriesPerBlock, uint64_t{frame->num_items} * kMaxEntriesPerRecord);
    if (frame->num_entries > most)
      return bad("num_entries", 20,
                 std::to_string(frame->num_entries) + " is above " + std::to_string(most) +
                     ", the most that " + std::to_string(frame->num_items) + " positions may hold");
  }
  if (frame->type == FrameType::kSequences &&
      uint64_t{frame->num_items} * kBytesPerSequence != frame->content_length)
    return bad("num_items", 16,
               std::to_string(frame->num_items) +
                   " sequences of 20 bytes are not content_length = " +
                   std::to_string(frame->content_length));
  if (frame->type == FrameType::kCommit && frame->content_length != kCommitLength)
    return bad("content_length", 12, "a commit has 32 bytes");
  return Status::Ok();
}

void EncodeCommit(const Totals& totals, uint32_t chain, uint8_t* out) {
  Store64(out, totals.num_positions);
  Store64(out + 8, totals.num_sequences);
  Store64(out + 16, totals.num_entries);
  Store32(out + 24, chain);
  Store32(out + 28, 0);
}

Status DecodeCommit(ByteSpan content, Totals* totals, uint32_t* chain) {
  totals->num_positions = Load64(content.data());
  totals->num_sequences = Load64(content.data() + 8);
  totals->num_entries = Load64(content.data() + 16);
  *chain = Load32(content.data() + 24);
  if (Load32(content.data() + 28) != 0)
    return BadField("reserved", 28, "reserved bytes are not zero");
  return CheckTotals(*totals);
}

void EncodeFooter(const Footer& footer, const Uuid& uuid, uint8_t* out) {
  std::memset(out, 0, kFooterLength);
  std::memcpy(out, kFooterMagic, sizeof(kFooterMagic));
  Store64(out + 8, footer.index_offset);
  Store64(out + 16, footer.file_length);
  Store64(out + 24, footer.totals.num_positions);
  Store64(out + 32, footer.totals.num_sequences);
  Store64(out + 40, footer.totals.num_entries);
  Store32(out + 48, footer.chain);
  Store32(out + 60, ExtendCrc32c(ExtendCrc32c(0, uuid.data(), uuid.size()), out, 60));
}

Status DecodeFooter(ByteSpan bytes, const Uuid& uuid, Footer* footer) {
  const uint8_t* const in = bytes.data();
  if (std::memcmp(in, kFooterMagic, sizeof(kFooterMagic)) != 0)
    return Status::Truncated("the file does not end with a footer: it was cut, or never finished")
        .Field("magic")
        .At(0);
  if (Load32(in + 60) != ExtendCrc32c(ExtendCrc32c(0, uuid.data(), uuid.size()), in, 60))
    return BadField("footer_crc", 60, "the footer's checksum does not match");
  footer->index_offset = Load64(in + 8);
  footer->file_length = Load64(in + 16);
  footer->totals = {Load64(in + 24), Load64(in + 32), Load64(in + 40)};
  footer->chain = Load32(in + 48);
  if (!AllZero(in + 52, 8)) return BadField("reserved", 52, "reserved bytes are not zero");
  if (footer->file_length > kMaxShardLength)
    return BadField("file_length", 16,
                    std::to_string(footer->file_length) + " is above the limit 2^35");
  SPARSELOGITS_RETURN_IF_ERROR(CheckTotals(footer->totals).Shift(24));
  const uint64_t most = footer->totals.num_positions * kMaxEntriesPerRecord;
  if (footer->totals.num_entries > most)
    return BadField("num_entries", 40,
                    std::to_string(footer->totals.num_entries) + " is above " +
                        std::to_string(most) + ", the most that " +
                        std::to_string(footer->totals.num_positions) + " positions may hold");
  return Status::Ok();
}

}  // namespace sparselogits
