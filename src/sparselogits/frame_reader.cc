#include "sparselogits/frame_reader.h"

#include <string>

#include "sparselogits/crc32c.h"
#include "sparselogits/lz4_block.h"

namespace sparselogits {
namespace {

Status Unwrap(ByteSpan payload, Frame* frame) {
  const auto at = static_cast<int64_t>(frame->offset);
  if (CurrentLz4() == nullptr)
    return Status::Unsupported("the frame is LZ4-wrapped and this program has no LZ4")
        .Field("wrapping")
        .At(at + 5);
  const size_t length = frame->header.content_length;
  frame->unwrapped.resize(length + kReadPadding);
  if (!CurrentLz4()->decompress(payload, frame->unwrapped.data(), length))
    return Status::Corruption("the payload is not an LZ4 block of content_length bytes")
        .Field("payload")
        .At(at + static_cast<int64_t>(kFrameHeaderLength));
  frame->content = {frame->unwrapped.data(), length};
  return Status::Ok();
}

}  // namespace

Status ReadFrame(ByteSpan file, uint64_t file_end, const ShardHeader& shard, uint64_t offset,
                 CheckPayload check, Frame* frame) {
  frame->offset = offset;
  if (offset > file_end || file_end - offset < kFrameHeaderLength)
    return Status::Truncated("the file ends inside a frame header")
        .Field("frame")
        .At(static_cast<int64_t>(offset));
  SPARSELOGITS_RETURN_IF_ERROR(
      DecodeFrameHeader(file.subspan(offset, kFrameHeaderLength), shard, offset, &frame->header));
  if (file_end - offset < frame->header.frame_length())
    return Status::Truncated("the file ends inside a frame of " +
                             std::to_string(frame->header.frame_length()) + " bytes")
        .Field("payload_length")
        .At(static_cast<int64_t>(offset) + 8);
  const ByteSpan payload = file.subspan(offset + kFrameHeaderLength, frame->header.payload_length);
  const bool wrapped = frame->header.wrapping != Wrapping::kNone;
  if (check == CheckPayload::kYes || wrapped) {
    const uint32_t crc =
        ExtendCrc32c(0, payload.data(), PaddedLength(frame->header.payload_length));
    if (crc != frame->header.payload_crc)
      return Status::Corruption("the payload's checksum does not match")
          .Field("payload_crc")
          .At(static_cast<int64_t>(offset) + 24);
    for (uint64_t at = payload.size(); at < PaddedLength(payload.size()); ++at)
      if (payload.data()[at] != 0)
        return Status::Corruption("padding after the payload is not zero")
            .Field("padding")
            .At(static_cast<int64_t>(offset + kFrameHeaderLength + at));
  }
  if (wrapped) return Unwrap(payload, frame);
  frame->content = payload;
  return Status::Ok();
}

uint64_t FindFrame(ByteSpan file, uint64_t end, const ShardHeader& shard, uint64_t offset,
                   FrameHeader* frame) {
  for (; offset < end && end - offset >= kFrameHeaderLength; offset += kFrameAlignment)
    if (DecodeFrameHeader(file.subspan(offset, kFrameHeaderLength), shard, offset, frame).ok())
      return offset;
  return end;
}

}  // namespace sparselogits
