// Takes the symbols of a compact block one after the other. Private to the compact codec.
#pragma once

#include <algorithm>

#include "sparselogits/bit_reader.h"
#include "sparselogits/huffman.h"

namespace sparselogits::compact {

// A window of bits that moves over a byte span. Behind its end there are zeros: running over it is
// for the caller to notice, and no byte behind the span and its padding is read.
class BitWindow {
 public:
  // The most bits that may be taken between two refills.
  static constexpr int kRefillBits = 56;

  BitWindow(const uint8_t* base, uint64_t bit, const uint8_t* end)
      : base_(base), next_(base + (bit >> 3)), end_(end) {
    Refill();
    Drop(static_cast<int>(bit & 7));
  }

  void Refill() {
    if (next_ <= end_) [[likely]]
      word_ |= Load64(next_) << have_;
    next_ += (63 - have_) >> 3;
    have_ |= 56;
  }
  uint64_t word() const { return word_; }
  void Drop(int width) {
    word_ >>= width;
    have_ -= width;
  }
  uint32_t Take(int width) {
    const auto value = static_cast<uint32_t>(LowBits(word_, width));
    Drop(width);
    return value;
  }
  uint32_t TakeSymbol(const HuffmanTables& tables, size_t table) {
    const HuffmanTables::Entry entry = tables.Find(table, word_);
    Drop(entry.length);
    return entry.symbol;
  }

  // The bit after the last one taken.
  uint64_t position() const {
    return static_cast<uint64_t>(next_ - base_) * 8 - static_cast<uint64_t>(have_);
  }
  bool is_overrun() const { return position() > static_cast<uint64_t>(end_ - base_) * 8; }

 private:
  const uint8_t* base_;
  const uint8_t* next_;
  const uint8_t* end_;
  uint64_t word_ = 0;
  int have_ = 0;
};

}  // namespace sparselogits::compact
