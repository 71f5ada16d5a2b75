// Canonical prefix codes with limited lengths, and tables that decode one symbol a look-up.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "sparselogits/status.h"

namespace sparselogits {

inline constexpr uint32_t kMaxSymbols = 256;  // of one code
inline constexpr int kMaxCodeLength = 12;

// The code lengths of least total cost, none above `limit`, for symbols that occur so often;
// 0 where a symbol does not occur. A lone symbol has length 1. (Package-merge: Larmore and
// Hirschberg 1990.) REQUIRES: counts.size() <= kMaxSymbols and <= 2^limit.
std::vector<uint8_t> CodeLengths(std::span<const uint64_t> counts, int limit);

// The bits of each symbol's code, in the order of the stream from the least significant bit on:
// canonical (shorter codes first, equal lengths in the order of the symbols), bits reversed.
std::vector<uint16_t> CanonicalCodes(std::span<const uint8_t> lengths);

// Whether the lengths are those of a complete prefix code: every bit string decodes to something.
// A lone symbol of length 1 counts as one; the decoder then ignores the bit.
bool IsCompleteCode(std::span<const uint8_t> lengths);

// Codes that are used side by side, with one decoding table each, one after the other.
class HuffmanTables {
 public:
  // The symbol in the upper byte, the length of its code in the lower one.
  using Entry = uint16_t;

  // `width` bits select an entry. REQUIRES: 1 <= width <= kMaxCodeLength.
  explicit HuffmanTables(int width) : width_(width) {}

  // REQUIRES: IsCompleteCode(lengths), none above the width.
  void Add(std::span<const uint8_t> lengths);

  int width() const { return width_; }
  size_t size() const { return entries_.size() >> width_; }
  // Of the bits that select an entry.
  uint64_t mask() const { return (uint64_t{1} << width_) - 1; }
  const Entry* data() const { return entries_.data(); }

 private:
  int width_;
  std::vector<Entry> entries_;
};

}  // namespace sparselogits
