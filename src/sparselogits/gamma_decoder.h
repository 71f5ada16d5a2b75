// Gamma codes of the counts of a record, several at a time by table.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "sparselogits/bit_reader.h"

namespace sparselogits {

// Decodes one gamma code. Returns 0, which no code means, where it has more than max_zeros zeros.
inline uint32_t TakeGamma(const uint8_t* base, uint64_t* bit, int max_zeros) {
  const uint64_t word = PeekBits(base, *bit);
  const int zeros = std::countr_zero(word);
  if (zeros > max_zeros) [[unlikely]]
    return 0;
  *bit += static_cast<uint64_t>(2 * zeros + 1);
  return (uint32_t{1} << zeros) | static_cast<uint32_t>(LowBits(word >> (zeros + 1), zeros));
}

// The gamma codes that lie whole in a window of bits, at most kMaxCodes of them.
struct GammaRun {
  static constexpr int kWindowBits = 9;
  static constexpr int kMaxCodes = 8;
  // Above any sum of a run, so that "how many prefix sums are below" counts real codes only.
  static constexpr uint8_t kNoCode = 127;

  std::array<uint8_t, kMaxCodes> values{};
  std::array<uint8_t, kMaxCodes> sums{};  // of the values up to and including each one
  std::array<uint8_t, kMaxCodes> ends{};  // the bit after each code
  uint8_t num_codes = 0;
  uint8_t sum = 0;
  uint8_t bits = 0;
  uint8_t unused[5] = {};
};
static_assert(sizeof(GammaRun) == 32);

constexpr std::array<GammaRun, 1 << GammaRun::kWindowBits> MakeGammaRuns() {
  std::array<GammaRun, 1 << GammaRun::kWindowBits> runs{};
  for (uint32_t window = 0; window < runs.size(); ++window) {
    GammaRun& run = runs[window];
    run.sums.fill(GammaRun::kNoCode);
    int bit = 0;
    while (run.num_codes < GammaRun::kMaxCodes) {
      const int zeros = std::countr_zero(window >> bit);
      if (bit + 2 * zeros + 1 > GammaRun::kWindowBits) break;
      const uint32_t mantissa = (window >> (bit + zeros + 1)) & ((1u << zeros) - 1);
      const size_t i = run.num_codes++;
      bit += 2 * zeros + 1;
      run.values[i] = static_cast<uint8_t>((1u << zeros) | mantissa);
      run.sum = static_cast<uint8_t>(run.sum + run.values[i]);
      run.sums[i] = run.sum;
      run.ends[i] = static_cast<uint8_t>(bit);
    }
    run.bits = static_cast<uint8_t>(bit);
  }
  return runs;
}

inline constexpr auto kGammaRuns = MakeGammaRuns();

inline constexpr uint64_t kEveryByte = 0x0101010101010101u;
inline constexpr uint64_t kHighBits = 0x8080808080808080u;

// The index of the first byte in memory that is not zero. REQUIRES: word != 0.
inline int FirstByte(uint64_t word) {
  return (std::endian::native == std::endian::little ? std::countr_zero(word)
                                                     : std::countl_zero(word)) /
         8;
}

enum class GammaOutcome { kOk, kOverrun, kCodeTooLong, kSumTooLarge };

// Takes gamma codes from *bit on until they sum to `total`; *num_codes is how many.
// Where `Store`, writes the values: `out` needs room for `total` values and kMaxCodes more.
// On kSumTooLarge *num_codes and *bit mean nothing. REQUIRES: 1 <= total.
template <bool Store>
inline GammaOutcome TakeGammaSum(const uint8_t* base, uint64_t* bit, uint64_t end, uint32_t total,
                                 int max_zeros, uint16_t* out, uint32_t* num_codes) {
  uint32_t n = 0;
  uint32_t left = total;
  uint64_t at = *bit;
  for (;;) {
    if (at >= end) [[unlikely]]
      return GammaOutcome::kOverrun;
    const GammaRun& run = kGammaRuns[LowBits(PeekBits(base, at), GammaRun::kWindowBits)];
    if constexpr (Store)
      for (size_t i = 0; i < GammaRun::kMaxCodes; ++i) out[n + i] = run.values[i];
    if (run.sum >= left) {
      // The first prefix sum that is not below what is left, all eight compared at once: the high
      // bit of a byte of `reached` is set where it is not.
      const uint64_t reached =
          ((std::bit_cast<uint64_t>(run.sums) | kHighBits) - left * kEveryByte) & kHighBits;
      const auto before = static_cast<uint32_t>(FirstByte(reached));
      if (run.sums[before] != left) [[unlikely]]
        return GammaOutcome::kSumTooLarge;
      *num_codes = n + before + 1;
      *bit = at + run.ends[before];
      return GammaOutcome::kOk;
    }
    if (run.num_codes == 0) [[unlikely]] {
      const uint32_t value = TakeGamma(base, &at, max_zeros);
      if (value == 0) return GammaOutcome::kCodeTooLong;
      if (value > left) return GammaOutcome::kSumTooLarge;
      if constexpr (Store) out[n] = static_cast<uint16_t>(value);
      ++n;
      left -= value;
      if (left == 0) {
        *num_codes = n;
        *bit = at;
        return GammaOutcome::kOk;
      }
      continue;
    }
    n += run.num_codes;
    left -= run.sum;
    at += run.bits;
  }
}

}  // namespace sparselogits
