// Appends bit fields to bytes, least significant bit first (formats/v1.md section 2).
#pragma once

#include <bit>
#include <cstdint>

#include "sparselogits/bytes.h"

namespace sparselogits {

class BitWriter {
 public:
  explicit BitWriter(Bytes* out) : out_(out) {}

  // REQUIRES: width <= 32 and value < 2^width.
  void Put(uint64_t value, int width) {
    pending_ |= value << pending_bits_;
    pending_bits_ += width;
    while (pending_bits_ >= 32) {
      AppendLittle<uint32_t>(out_, static_cast<uint32_t>(pending_));
      pending_ >>= 32;
      pending_bits_ -= 32;
    }
  }

  void PutZeros(uint32_t count) {
    for (; count > 32; count -= 32) Put(0, 32);
    Put(0, static_cast<int>(count));
  }

  // Elias gamma code. REQUIRES: 1 <= value < 2^31.
  void PutGamma(uint32_t value) {
    const int z = std::bit_width(value) - 1;
    Put(uint64_t{1} << z, z + 1);
    Put(value & ((uint32_t{1} << z) - 1), z);
  }

  // Pads with zero bits to a whole byte and writes out what is pending.
  void Align() {
    for (; pending_bits_ > 0; pending_bits_ -= 8) {
      out_->push_back(static_cast<uint8_t>(pending_));
      pending_ >>= 8;
    }
    pending_ = 0;
    pending_bits_ = 0;
  }

 private:
  Bytes* out_;
  uint64_t pending_ = 0;
  int pending_bits_ = 0;
};

}  // namespace sparselogits
