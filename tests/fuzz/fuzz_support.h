// What every fuzz target needs: an entry point, invariants that stop the run, and bytes as numbers.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "sparselogits/bytes.h"
#include "sparselogits/status.h"

// libFuzzer's entry point; fuzz_replay.cc calls it for kept inputs. Returns 0: an input is never
// refused.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Stops the run where the invariant does not hold; libFuzzer then keeps the input.
#define FUZZ_CHECK(condition)                                                            \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#define FUZZ_CHECK_OK(expression)                                                           \
  do {                                                                                      \
    const ::sparselogits::Status fuzz_status = (expression);                                \
    if (!fuzz_status.ok()) {                                                                \
      std::fprintf(stderr, "%s:%d: %s: %s (field %s, byte %lld)\n", __FILE__, __LINE__,     \
                   #expression, fuzz_status.message().c_str(), fuzz_status.field().c_str(), \
                   static_cast<long long>(fuzz_status.offset()));                           \
      std::abort();                                                                         \
    }                                                                                       \
  } while (false)

namespace sparselogits::fuzz {

// Numbers from the front of the input; zeros once it is used up.
class Input {
 public:
  explicit Input(ByteSpan bytes) : left_(bytes) {}

  uint64_t Number(size_t num_bytes) {
    uint64_t value = 0;
    const size_t taken = std::min(num_bytes, left_.size());
    for (size_t i = 0; i < taken; ++i) value |= uint64_t{left_[i]} << (8 * i);
    left_ = left_.subspan(taken);
    return value;
  }
  uint8_t Byte() { return static_cast<uint8_t>(Number(1)); }
  // 0 ... limit - 1. REQUIRES: 1 <= limit.
  uint32_t Below(uint32_t limit) {
    return static_cast<uint32_t>(Number(limit <= 1u << 8 ? 1 : limit <= 1u << 16 ? 2 : 4) % limit);
  }
  // REQUIRES: there are so many left.
  void Skip(size_t num_bytes) { left_ = left_.subspan(num_bytes); }
  bool empty() const { return left_.empty(); }
  ByteSpan rest() const { return left_; }

 private:
  ByteSpan left_;
};

// A copy with exactly the read padding that the decoders ask for, so that a sanitizer sees a read
// beyond it.
class PaddedCopy {
 public:
  explicit PaddedCopy(ByteSpan bytes)
      : size_(bytes.size()), data_(new uint8_t[bytes.size() + kReadPadding]) {
    std::copy(bytes.begin(), bytes.end(), data_.get());
    // Not zeros: the result must not depend on them.
    std::fill_n(data_.get() + size_, kReadPadding, uint8_t{0xA5});
  }
  ByteSpan span() const { return {data_.get(), size_}; }

 private:
  size_t size_;
  std::unique_ptr<uint8_t[]> data_;
};

}  // namespace sparselogits::fuzz
