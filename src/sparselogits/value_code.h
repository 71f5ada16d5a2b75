// Numbers as symbols of a prefix code: exact when small, else a symbol for the leading bits of the
// number and its other bits as they are.
#pragma once

#include <bit>
#include <cstdint>

namespace sparselogits {

inline constexpr uint32_t kExactValues = 32;
inline constexpr uint32_t kMaxValue = (1u << 24) - 1;

struct ValueSymbol {
  uint32_t symbol;
  int extra_bits;
  uint32_t extra;
};

// REQUIRES: value <= kMaxValue.
inline ValueSymbol SplitValue(uint32_t value) {
  if (value < kExactValues) return {value, 0, 0};
  const int extra_bits =
      std::bit_width(value) - 3;  // the leading one and two bits are the symbol's
  const uint32_t leading = value >> extra_bits & 3;
  return {kExactValues + static_cast<uint32_t>(extra_bits - 3) * 4 + leading, extra_bits,
          value & ((1u << extra_bits) - 1)};
}

inline constexpr int ExtraBits(uint32_t symbol) {
  return symbol < kExactValues ? 0 : static_cast<int>((symbol - kExactValues) / 4) + 3;
}

// The smallest value of a symbol.
inline constexpr uint32_t ValueBase(uint32_t symbol) {
  return symbol < kExactValues ? symbol : (4 | ((symbol - kExactValues) & 3)) << ExtraBits(symbol);
}

// How many symbols the values 0 ... largest have.
inline uint32_t NumValueSymbols(uint32_t largest) { return SplitValue(largest).symbol + 1; }

}  // namespace sparselogits
