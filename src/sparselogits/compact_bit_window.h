// Takes the bits and symbols of a compact block one after the other. Private to the compact codec.
#pragma once

#include "sparselogits/bit_reader.h"
#include "sparselogits/huffman.h"
#include "sparselogits/value_code.h"

namespace sparselogits::compact {

// A window of bits that moves over a byte span. Behind its end there are zeros: running over it is
// for the caller to notice, and no byte behind the span and its padding is read.
class BitWindow {
 public:
  BitWindow(const uint8_t* base, uint64_t bit, const uint8_t* end)
      : base_(base), next_(base + (bit >> 3)), end_(end) {
    Refill();
    Drop(bit & 7);
  }

  // Allows 56 bits to be taken.
  void Refill() {
    if (next_ <= end_) [[likely]]
      word_ |= Load64(next_) << have_;
    next_ += (63 - have_) >> 3;
    have_ |= 56;
  }
  void Drop(uint64_t width) {
    word_ >>= width;
    have_ -= width;
  }
  uint32_t Take(uint32_t width) {
    const auto value = static_cast<uint32_t>(word_ & ((uint64_t{1} << width) - 1));
    Drop(width);
    return value;
  }
  // `entries` are the 2^width ones of a code.
  uint32_t TakeSymbol(const HuffmanTables::Entry* entries, uint64_t mask) {
    const uint32_t entry = entries[word_ & mask];
    word_ >>= entry & 63;
    have_ -= entry & 63;
    return entry >> 8;
  }
  // A number as value_code.h puts it.
  uint32_t TakeValue(const HuffmanTables::Entry* entries, uint64_t mask) {
    const uint32_t symbol = TakeSymbol(entries, mask);
    if (symbol < kExactValues) [[likely]]
      return symbol;
    return ValueBase(symbol) + Take(static_cast<uint32_t>(ExtraBits(symbol)));
  }

  // The bit after the last one taken.
  uint64_t position() const { return static_cast<uint64_t>(next_ - base_) * 8 - have_; }
  bool is_overrun() const { return position() > static_cast<uint64_t>(end_ - base_) * 8; }

 private:
  const uint8_t* base_;
  const uint8_t* next_;
  const uint8_t* end_;
  uint64_t word_ = 0;
  uint64_t have_ = 0;
};

}  // namespace sparselogits::compact
