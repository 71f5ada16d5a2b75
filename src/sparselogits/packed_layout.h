// The fixed facts of a packed block's content, shared by its encoder and its decoder.
#pragma once

#include <bit>
#include <cstdint>

namespace sparselogits::packed {

inline constexpr size_t kBlockHeaderLength = 4;
inline constexpr uint8_t kHasEmpty = 1 << 0;
inline constexpr uint8_t kWideDirectory = 1 << 1;
inline constexpr uint8_t kKnownFlags = kHasEmpty | kWideDirectory;
inline constexpr int kMaxLowBits = 24;
inline constexpr int kMaxCountZeros = 15;        // gamma code of a count <= 65,535
inline constexpr int kMaxEntryNumberZeros = 24;  // gamma code of a number of entries

inline int TokenBits(uint32_t vocab_size) {
  return vocab_size <= 2 ? 1 : std::bit_width(vocab_size - 1);
}

inline uint32_t NumStretches(uint32_t num_positions) { return (num_positions + 63) / 64; }

}  // namespace sparselogits::packed
