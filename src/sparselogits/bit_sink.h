// Collects bit fields, least significant bit first (formats/v1.md section 2), faster than
// BitWriter: room is made for many fields at once.
#pragma once

#include <bit>

#include "sparselogits/bytes.h"

namespace sparselogits {

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
  void PutZeros(uint32_t count) {
    for (; count > 32; count -= 32) Put(0, 32);
    Put(0, static_cast<int>(count));
  }
  // Elias gamma code. REQUIRES: 1 <= value < 2^16.
  void PutGamma(uint32_t value) {
    const int z = std::bit_width(value) - 1;
    Put(uint64_t{1} << z | uint64_t{value & ((1u << z) - 1)} << (z + 1), 2 * z + 1);
  }
  // Pads with zero bits to a whole byte.
  void Align() { Put(0, static_cast<int>(-pending_bits_ & 7)); }

  uint64_t bits() const { return bytes_.size() * 8 + pending_bits_; }
  // REQUIRES: the last byte is whole.
  ByteSpan bytes() const { return bytes_.span(); }

 private:
  Buffer<uint8_t> bytes_;
  uint64_t pending_ = 0;
  uint64_t pending_bits_ = 0;  // fewer than 8
};

}  // namespace sparselogits
