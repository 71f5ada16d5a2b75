// The bits of a compact block's records as they are written, in memory that grows by the record.
// Private to the compact encoder.
#pragma once

#include "sparselogits/bytes.h"

namespace sparselogits::compact {

class BitSink {
 public:
  // Makes room for so many bits more. What is put must not be more.
  void Reserve(uint64_t bits) { bytes_.EnsureRoom((pending_bits_ + bits) / 8 + sizeof(uint64_t)); }

  // REQUIRES: width <= 32 and value < 2^width.
  void Put(uint64_t value, int width) {
    pending_ |= value << pending_bits_;
    pending_bits_ += static_cast<uint64_t>(width);
    StoreLittle<uint64_t>(bytes_.end(), pending_);
    bytes_.Advance(pending_bits_ / 8);
    pending_ >>= pending_bits_ & 56;
    pending_bits_ &= 7;
  }
  uint64_t bits() const { return bytes_.size() * 8 + pending_bits_; }
  // All bytes; the last one is padded with zero bits.
  ByteSpan Finish() {
    Reserve(8);
    if (pending_bits_ > 0) bytes_.Append(static_cast<uint8_t>(pending_));
    pending_ = pending_bits_ = 0;
    return bytes_.span();
  }

 private:
  Buffer<uint8_t> bytes_;
  uint64_t pending_ = 0;
  uint64_t pending_bits_ = 0;  // fewer than 8
};

}  // namespace sparselogits::compact
