// Frames of a shard in memory: header, checksum, content.
#pragma once

#include "sparselogits/bytes.h"
#include "sparselogits/shard_layout.h"
#include "sparselogits/status.h"

namespace sparselogits {

// A frame and its content. The content points into the file, or into `unwrapped`.
// kReadPadding bytes after it can be read.
struct Frame {
  FrameHeader header;
  uint64_t offset = 0;
  ByteSpan content;
  Bytes unwrapped;
};

enum class CheckPayload : bool { kNo = false, kYes = true };

// Reads the frame at `offset` of the file: the frame header is checked, the payload as asked.
// An LZ4-wrapped payload is always checked, and unwrapped.
// REQUIRES: kReadPadding bytes after file_end, the end of what frames may use, are readable.
Status ReadFrame(ByteSpan file, uint64_t file_end, const ShardHeader& shard, uint64_t offset,
                 CheckPayload check, Frame* frame);

// The offset of the first frame header at or after `offset` (a multiple of 8), wherever it is:
// `end` where there is none. Its checksum covers the shard's uuid and the place, so chance finds
// none.
uint64_t FindFrame(ByteSpan file, uint64_t end, const ShardHeader& shard, uint64_t offset,
                   FrameHeader* frame);

}  // namespace sparselogits
