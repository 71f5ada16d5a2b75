// Bit fields, gamma codes by table and one by one, and the narrow float types.
#include <cmath>
#include <random>

#include "check.h"
#include "sparselogits/bit_writer.h"
#include "sparselogits/gamma_decoder.h"
#include "sparselogits/half.h"

using namespace sparselogits;

namespace {

Bytes GammaCodes(const std::vector<uint32_t>& values) {
  Bytes bytes;
  BitWriter writer(&bytes);
  for (const uint32_t value : values) writer.PutGamma(value);
  writer.Align();
  bytes.resize(bytes.size() + kReadPadding);
  return bytes;
}

uint64_t Bits(const Bytes& bytes) { return (bytes.size() - kReadPadding) * 8; }

}  // namespace

TEST(fields_of_every_width_round_trip) {
  Bytes bytes;
  BitWriter writer(&bytes);
  for (int width = 0; width <= 32; ++width) writer.Put((uint64_t{1} << width) - 1, width);
  writer.Align();
  bytes.resize(bytes.size() + kReadPadding);
  uint64_t bit = 0;
  for (int width = 0; width <= 32; ++width) {
    CHECK_EQ(LowBits(PeekBits(bytes.data(), bit), width), (uint64_t{1} << width) - 1);
    bit += static_cast<uint64_t>(width);
  }
}

TEST(gamma_codes_are_as_the_format_shows) {
  CHECK_EQ(int{GammaCodes({1})[0]}, 0b1);
  CHECK_EQ(int{GammaCodes({2})[0]}, 0b010);  // bits in stream order: 0 1 0
  CHECK_EQ(int{GammaCodes({3})[0]}, 0b110);  // 0 1 1
}

TEST(gamma_code_round_trips) {
  for (uint32_t value = 1; value <= 65535; value = value * 3 / 2 + 1) {
    const Bytes bytes = GammaCodes({value});
    uint64_t bit = 0;
    CHECK_EQ(TakeGamma(bytes.data(), &bit, 15), value);
    CHECK_EQ((bit + 7) / 8 * 8, Bits(bytes));
  }
}

TEST(gamma_code_above_the_limit_is_refused) {
  const Bytes bytes = GammaCodes({65536});
  uint64_t bit = 0;
  CHECK_EQ(TakeGamma(bytes.data(), &bit, 15), 0u);
}

TEST(gamma_sums_by_table_equal_codes_one_by_one) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<uint32_t> values;
    uint32_t total = 0;
    const size_t n = 1 + random() % 60;
    while (values.size() < n && total < 65000) {
      values.push_back(random() % 4 != 0 ? 1 : 1 + random() % (random() % 8 == 0 ? 500 : 12));
      total += values.back();
    }
    const Bytes bytes = GammaCodes(values);
    std::vector<uint16_t> out(total + GammaRun::kMaxCodes);
    uint64_t bit = 0;
    uint32_t found = 0;
    CHECK(TakeGammaSum<true>(bytes.data(), &bit, Bits(bytes), total, 15, out.data(), &found) ==
          GammaOutcome::kOk);
    CHECK_EQ(size_t{found}, values.size());
    for (size_t i = 0; i < values.size(); ++i) CHECK_EQ(uint32_t{out[i]}, values[i]);
    uint64_t again = 0;
    for (const uint32_t value : values) CHECK_EQ(TakeGamma(bytes.data(), &again, 15), value);
    CHECK_EQ(again, bit);
  }
}

TEST(gamma_sum_that_overshoots_is_refused) {
  for (const std::vector<uint32_t>& values :
       std::vector<std::vector<uint32_t>>{{1, 1, 9}, {100}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3}}) {
    uint32_t total = 0;
    for (const uint32_t value : values) total += value;
    const Bytes bytes = GammaCodes(values);
    std::vector<uint16_t> out(total + GammaRun::kMaxCodes);
    uint64_t bit = 0;
    uint32_t found = 0;
    CHECK(TakeGammaSum<true>(bytes.data(), &bit, Bits(bytes), total - 1, 15, out.data(), &found) ==
          GammaOutcome::kSumTooLarge);
  }
}

TEST(narrow_weights_keep_what_they_can_represent) {
  for (const WeightDtype dtype : {WeightDtype::kFloat16, WeightDtype::kBfloat16}) {
    const uint32_t infinity = dtype == WeightDtype::kFloat16 ? 0x7C00 : 0x7F80;
    for (uint32_t bits = 0; bits < infinity; ++bits) {
      const float value = WeightFromBits(bits, dtype);
      CHECK_EQ(NarrowWeight(value, dtype, 0), bits);
      CHECK_EQ(NarrowWeight(value, dtype, 0xFFFFFFFF), bits);
    }
  }
}

TEST(narrow_weights_are_unbiased) {
  for (const WeightDtype dtype : {WeightDtype::kFloat16, WeightDtype::kBfloat16})
    for (const float weight : {0.3f, 1e-3f, 3e-6f, 0.99999f, 1.2345f}) {
      const int n = 1 << 16;  // evenly spread random words: the mean is exact up to 1 / n of a step
      double sum = 0;
      double low = 1e9, high = 0;
      for (int i = 0; i < n; ++i) {
        const auto random =
            static_cast<uint32_t>((uint64_t{2} * static_cast<uint64_t>(i) + 1) << 15);
        const double value = WeightFromBits(NarrowWeight(weight, dtype, random), dtype);
        sum += value;
        low = std::min(low, value);
        high = std::max(high, value);
      }
      CHECK(low <= weight && weight <= high);
      CHECK(std::abs(sum / n - weight) <= 2 * (high - low) / n + 1e-12);
    }
}

int main() { return sparselogits::testing::RunAll(); }
