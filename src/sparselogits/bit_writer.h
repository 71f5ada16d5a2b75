// Appends bit fields to bytes, least significant bit first (formats/v1.md section 2).
#pragma once

#include <bit>
#include <cstdint>

#include "sparselogits/bytes.h"

namespace sparselogits {

class BitWriter {
 public:
  // Appends to what is there. Until Align, `out` is longer than what was put, and nobody else's.
  explicit BitWriter(Bytes* out) : out_(out), begin_(out->size()) {
    next_ = last_ = out->data() + begin_;
  }

  // REQUIRES: width <= 56 and value < 2^width.
  void Put(uint64_t value, int width) {
    if (next_ >= last_) [[unlikely]]
      MakeRoom();
    pending_ |= value << pending_bits_;
    pending_bits_ += static_cast<uint64_t>(width);
    StoreLittle<uint64_t>(next_, pending_);
    next_ += pending_bits_ / 8;
    pending_ >>= pending_bits_ & 56;
    pending_bits_ &= 7;
  }

  // So many zeros and a one.
  void PutUnary(uint32_t zeros) {
    for (; zeros > 55; zeros -= 32) Put(0, 32);
    Put(uint64_t{1} << zeros, static_cast<int>(zeros) + 1);
  }

  // Elias gamma code. REQUIRES: 1 <= value < 2^28.
  void PutGamma(uint32_t value) {
    const auto z = static_cast<int>(std::bit_width(value)) - 1;
    Put(uint64_t{1} << z | uint64_t{value & ((1u << z) - 1)} << (z + 1), 2 * z + 1);
  }

  // Pads with zero bits to a whole byte. `out` then ends with it; more may be put behind.
  void Align() {
    Put(0, static_cast<int>(-pending_bits_ & 7));
    out_->resize(size());
    last_ = next_;
  }

  // How many have been put, those of Align included.
  uint64_t bits() const { return (size() - begin_) * 8 + pending_bits_; }

 private:
  static constexpr size_t kRoom = 4096;  // made at a time

  size_t size() const { return static_cast<size_t>(next_ - out_->data()); }
  void MakeRoom() {
    const size_t used = size();
    out_->resize(used + kRoom);
    next_ = out_->data() + used;
    last_ = out_->data() + out_->size() - sizeof(uint64_t);
  }

  Bytes* out_;
  size_t begin_;
  uint8_t* next_;  // where the pending bits go
  uint8_t* last_;  // from here on room must be made for a word
  uint64_t pending_ = 0;
  uint64_t pending_bits_ = 0;  // fewer than 8
};

}  // namespace sparselogits
