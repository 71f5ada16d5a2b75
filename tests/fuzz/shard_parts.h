// A shard taken apart into header, frames and footer, whatever its checksums say, and put together
// again with everything that follows from the parts made right: what lets a fuzzer get past the
// checksums.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "sparselogits/bytes.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits::fuzz {

struct PartFrame {
  std::array<uint8_t, kFrameHeaderLength> header{};
  Bytes payload;

  uint32_t type() const { return Load32(header.data()); }
  bool is(FrameType type) const { return this->type() == static_cast<uint32_t>(type); }
  bool is_wrapped() const { return header[5] == static_cast<uint8_t>(Wrapping::kLz4); }
  uint32_t num_items() const { return Load32(header.data() + 16); }
  uint32_t num_entries() const { return Load32(header.data() + 20); }
};

// Which of the derived fields are made right; the others stay as they are.
struct Restamping {
  bool lengths = true;    // payload_length; content_length of a frame without wrapping
  bool totals = true;     // what CMIT frames and the footer state
  bool index = true;      // the INDX frame is built anew
  bool checksums = true;  // header_crc, payload_crc, frame_crc, chains, footer_crc
};

struct ShardParts {
  std::array<uint8_t, kHeaderLength> header{};
  std::vector<PartFrame> frames;
  std::optional<std::array<uint8_t, kFooterLength>> footer;
  Bytes tail;  // bytes between the last whole frame and the footer

  // None where the bytes are too few for a header.
  static std::optional<ShardParts> Parse(ByteSpan bytes);
  Bytes Build(const Restamping& restamping) const;
};

// The content of an LZ4-wrapped payload; none where it is not one or is larger than `limit`.
std::optional<Bytes> UnwrapPayload(const PartFrame& frame, size_t limit);
// Wraps the content as the payload of the frame and sets its lengths and wrapping.
void WrapPayload(ByteSpan content, PartFrame* frame);

}  // namespace sparselogits::fuzz
