// Numbers as symbols: exact, without gaps, and in the order of the numbers.
#include "check.h"
#include "sparselogits/value_code.h"

using namespace sparselogits;

namespace {

uint32_t Join(const ValueSymbol& split) { return ValueBase(split.symbol) + split.extra; }

}  // namespace

TEST(every_value_round_trips) {
  for (uint32_t value = 0; value <= kMaxValue; value += value < 1u << 17 ? 1 : 997) {
    const ValueSymbol split = SplitValue(value);
    CHECK_EQ(Join(split), value);
    CHECK_EQ(ExtraBits(split.symbol), split.extra_bits);
    CHECK(split.extra < 1u << split.extra_bits || split.extra_bits == 0);
  }
  CHECK_EQ(Join(SplitValue(kMaxValue)), kMaxValue);
}

TEST(symbols_follow_each_other_without_gaps) {
  const uint32_t num_symbols = NumValueSymbols(kMaxValue);
  CHECK(num_symbols <= 256);  // of one code
  for (uint32_t symbol = 0; symbol < num_symbols; ++symbol)
    CHECK_EQ(ValueBase(symbol) + (1u << ExtraBits(symbol)),
             symbol + 1 < num_symbols ? ValueBase(symbol + 1) : kMaxValue + 1);
}

TEST(small_values_have_no_extra_bits) {
  for (uint32_t value = 0; value < kExactValues; ++value) {
    CHECK_EQ(SplitValue(value).symbol, value);
    CHECK_EQ(SplitValue(value).extra_bits, 0);
  }
  CHECK(SplitValue(kExactValues).extra_bits > 0);
}

TEST(the_number_of_symbols_is_that_of_the_largest_value) {
  for (uint32_t largest = 0; largest < 70'000; ++largest) {
    const uint32_t n = NumValueSymbols(largest);
    CHECK_EQ(SplitValue(largest).symbol, n - 1);
    CHECK(ValueBase(n - 1) <= largest);
    CHECK(ValueBase(n) > largest);
  }
}

int main() { return sparselogits::testing::RunAll(); }
