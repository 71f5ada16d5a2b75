#include "sparselogits/compact_block.h"

#include <algorithm>
#include <string>

#include "sparselogits/layout_checks.h"

namespace sparselogits::compact {

Status Block::Parse(ByteSpan content, const RecordFormat& format, uint32_t num_positions,
                    Block* out) {
  if (content.size() < kBlockHeaderLength)
    return BadField("content_length", 0,
                    "the block's content has " + std::to_string(content.size()) +
                        " bytes, too few for its header");
  const uint8_t* const in = content.data();
  if (in[0] > kMaxStartBits)
    return BadField("start_bits", 0, std::to_string(in[0]) + " is above the limit 32");
  if (!AllZero(in + 1, 3)) return BadField("reserved", 1, "reserved bytes are not zero");
  out->num_positions_ = num_positions;
  out->num_stretches_ = (num_positions + kStretch - 1) / kStretch;
  out->vocab_size_ = format.vocab_size;
  out->start_bits_ = in[0];
  out->token_bits_ = format.store_tokens ? packed::TokenBits(format.vocab_size) : 0;
  out->step_ = Load32(in + 4);
  out->bias_ = Load32(in + 8);
  out->directory_bits_ =
      static_cast<uint64_t>(out->token_bits_) +
      (out->num_stretches_ - uint64_t{1}) * static_cast<uint64_t>(out->start_bits_);
  const uint64_t before = kBlockHeaderLength + (out->directory_bits_ + 7) / 8;
  if (content.size() < before)
    return BadField("content_length", 0,
                    "the block's content has " + std::to_string(content.size()) +
                        " bytes; its directory needs " + std::to_string(before));
  out->directory_ = in + kBlockHeaderLength;
  out->records_ = content.subspan(before);
  out->records_offset_ = before;
  return Status::Ok();
}

uint64_t Block::start(uint32_t stretch) const {
  if (stretch == 0) return 0;
  if (stretch == num_stretches_) return uint64_t{records_.size()} * 8;
  const uint64_t at = static_cast<uint64_t>(token_bits_) +
                      (stretch - uint64_t{1}) * static_cast<uint64_t>(start_bits_);
  return stretch * step_ + LowBits(PeekBits(directory_, at), start_bits_) - bias_;
}

Status Block::FindStretch(uint32_t stretch, Stretch* out) const {
  out->begin = start(stretch);
  out->end = start(stretch + 1);
  out->first = stretch * kStretch;
  out->last = std::min(num_positions_, out->first + kStretch);
  const uint64_t bits = uint64_t{records_.size()} * 8;
  if (out->begin > out->end || out->end > bits)
    return BadField("directory", static_cast<int64_t>(kBlockHeaderLength),
                    "stretch " + std::to_string(stretch) + " goes from bit " +
                        std::to_string(out->begin) + " to " + std::to_string(out->end) + " of " +
                        std::to_string(bits));
  return Status::Ok();
}

Status Block::FirstToken(uint32_t* token) const {
  *token = static_cast<uint32_t>(LowBits(PeekBits(directory_, 0), token_bits_));
  if (*token >= vocab_size_)
    return BadField("tokens", static_cast<int64_t>(kBlockHeaderLength),
                    "token " + std::to_string(*token) +
                        " is above the limit vocab_size - 1 = " + std::to_string(vocab_size_ - 1));
  return Status::Ok();
}

Status Block::CheckPadding() const {
  const auto left = static_cast<int>(-directory_bits_ & 7);
  if (LowBits(PeekBits(directory_, directory_bits_), left) != 0)
    return BadField("directory", static_cast<int64_t>(records_offset_ - 1),
                    "padding bits after the directory are not zero");
  return Status::Ok();
}

}  // namespace sparselogits::compact
