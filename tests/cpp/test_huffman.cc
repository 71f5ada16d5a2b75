// Prefix codes of limited length: the cheapest there are, complete, and decoded as they were coded.
#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include "check.h"
#include "sparselogits/huffman.h"

using namespace sparselogits;

namespace {

uint64_t CostOf(std::span<const uint64_t> counts, std::span<const uint8_t> lengths) {
  uint64_t cost = 0;
  for (size_t s = 0; s < counts.size(); ++s) cost += counts[s] * lengths[s];
  return cost;
}

// The least cost of any lengths that satisfy Kraft's inequality, by trying all of them.
uint64_t LeastCost(std::span<const uint64_t> counts, int limit) {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  const std::function<void(size_t, uint32_t, uint64_t)> extend = [&](size_t s, uint32_t room,
                                                                     uint64_t cost) {
    if (s == counts.size()) {
      least = std::min(least, cost);
      return;
    }
    for (int length = 1; length <= limit; ++length) {
      const uint32_t taken = 1u << (limit - length);
      if (taken <= room)
        extend(s + 1, room - taken, cost + counts[s] * static_cast<size_t>(length));
    }
  };
  extend(0, 1u << limit, 0);
  return least;
}

std::vector<uint64_t> RandomCounts(size_t n, int zero_percent, std::mt19937* random) {
  std::vector<uint64_t> counts(n);
  for (uint64_t& count : counts)
    if (static_cast<int>((*random)() % 100) >= zero_percent)
      count = 1 + ((*random)() >> ((*random)() % 32));  // of any magnitude
  return counts;
}

struct Found {
  uint32_t symbol;
  int length;
};

// What a table makes of the bits.
Found Find(const HuffmanTables& tables, size_t table, uint64_t bits) {
  const uint64_t mask = (uint64_t{1} << tables.width()) - 1;
  const HuffmanTables::Entry entry = tables.data()[(table << tables.width()) + (bits & mask)];
  return {static_cast<uint32_t>(entry >> 8), entry & 0xFF};
}

// Every symbol decodes from its own code, whatever bits follow, and codes tell each other apart.
void CheckDecodes(const std::vector<uint8_t>& lengths, int width) {
  HuffmanTables tables(width);
  tables.Add(lengths);
  const std::vector<uint16_t> codes = CanonicalCodes(lengths);
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] == 0) continue;
    for (const uint64_t behind : {uint64_t{0}, ~uint64_t{0}, uint64_t{0x5A5A5A5A}}) {
      const Found found = Find(tables, 0, behind << lengths[s] | codes[s]);
      CHECK_EQ(size_t{found.symbol}, s);
      CHECK_EQ(found.length, int{lengths[s]});
    }
  }
}

}  // namespace

TEST(code_lengths_cost_the_least_that_is_possible) {
  std::mt19937 random(1);
  for (size_t n = 2; n <= 6; ++n)
    for (int limit = std::bit_width(n - 1); limit <= 6; ++limit)
      for (int round = 0; round < 20; ++round) {
        const std::vector<uint64_t> counts = RandomCounts(n, 0, &random);
        CHECK_EQ(CostOf(counts, CodeLengths(counts, limit)), LeastCost(counts, limit));
      }
}

TEST(code_lengths_are_complete_and_within_the_limit) {
  std::mt19937 random(2);
  for (const size_t n : {2u, 3u, 17u, 100u, 255u, 256u})
    for (int limit = std::bit_width(n - 1); limit <= kMaxCodeLength; ++limit)
      for (const int zero_percent : {0, 50, 95}) {
        const std::vector<uint64_t> counts = RandomCounts(n, zero_percent, &random);
        const std::vector<uint8_t> lengths = CodeLengths(counts, limit);
        const auto occur = [](uint64_t count) { return count > 0; };
        if (std::none_of(counts.begin(), counts.end(), occur)) continue;
        CHECK(IsCompleteCode(lengths));
        for (size_t s = 0; s < n; ++s) {
          CHECK(lengths[s] <= limit);
          CHECK_EQ(lengths[s] > 0, counts[s] > 0);
        }
        CheckDecodes(lengths, limit);
      }
}

// Counts like Fibonacci's numbers ask for the longest codes of all.
TEST(the_limit_holds_where_the_best_codes_would_be_longer) {
  std::vector<uint64_t> counts = {1, 1};
  while (counts.size() < 40) counts.push_back(counts.end()[-1] + counts.end()[-2]);
  for (int limit = 6; limit <= kMaxCodeLength; ++limit) {
    const std::vector<uint8_t> lengths = CodeLengths(counts, limit);
    CHECK_EQ(static_cast<int>(*std::max_element(lengths.begin(), lengths.end())), limit);
    CHECK(IsCompleteCode(lengths));
    CheckDecodes(lengths, limit);
  }
}

TEST(as_many_symbols_as_the_limit_allows_all_get_that_length) {
  std::mt19937 random(3);
  const std::vector<uint8_t> lengths = CodeLengths(RandomCounts(256, 0, &random), 8);
  CHECK(std::all_of(lengths.begin(), lengths.end(), [](uint8_t length) { return length == 8; }));
}

TEST(a_lone_symbol_takes_one_bit_of_any_value) {
  std::vector<uint64_t> counts(9, 0);
  counts[5] = 7;
  const std::vector<uint8_t> lengths = CodeLengths(counts, 4);
  CHECK_EQ(static_cast<int>(lengths[5]), 1);
  CHECK(IsCompleteCode(lengths));
  HuffmanTables tables(4);
  tables.Add(lengths);
  for (uint64_t bits = 0; bits < 16; ++bits) {
    CHECK_EQ(Find(tables, 0, bits).symbol, 5u);
    CHECK_EQ(Find(tables, 0, bits).length, 1);
  }
}

TEST(symbols_that_never_occur_have_no_code) {
  const std::vector<uint64_t> counts(4, 0);
  const std::vector<uint8_t> lengths = CodeLengths(counts, 4);
  CHECK_EQ(std::count(lengths.begin(), lengths.end(), 0), 4);
  CHECK(!IsCompleteCode(lengths));
}

TEST(codes_are_canonical_with_their_bits_reversed) {
  const std::vector<uint8_t> lengths = {2, 3, 0, 1, 3};
  const std::vector<uint16_t> codes = CanonicalCodes(lengths);
  const std::vector<uint16_t> expected = {0b01, 0b011, 0, 0b0, 0b111};  // 10, 110, -, 0, 111
  CHECK(codes == expected);
}

TEST(codes_that_are_not_complete_are_told) {
  using Lengths = std::vector<uint8_t>;
  CHECK(IsCompleteCode(Lengths{1, 1}));
  CHECK(IsCompleteCode(Lengths{2, 2, 1}));
  CHECK(IsCompleteCode(Lengths(256, 8)));
  for (const Lengths& lengths :
       {Lengths{}, Lengths{0}, Lengths{2}, Lengths{12}, Lengths{1, 2}, Lengths{1, 1, 1},
        Lengths{1, 1, 12}, Lengths{13, 1}, Lengths{255, 1}, Lengths(255, 8), Lengths(256, 1)})
    CHECK(!IsCompleteCode(lengths));
}

TEST(tables_side_by_side_do_not_meddle) {
  HuffmanTables tables(3);
  tables.Add(std::vector<uint8_t>{1, 1});
  tables.Add(std::vector<uint8_t>{0, 0, 3, 3, 2, 1});
  tables.Add(std::vector<uint8_t>{0, 0, 0, 1});
  CHECK_EQ(tables.size(), size_t{3});
  CHECK_EQ(Find(tables, 0, 0b110).symbol, 0u);
  CHECK_EQ(Find(tables, 0, 0b111).symbol, 1u);
  CHECK_EQ(Find(tables, 1, 0b110).symbol, 5u);
  CHECK_EQ(Find(tables, 1, 0b101).symbol, 4u);
  CHECK_EQ(Find(tables, 1, 0b011).symbol, 2u);
  CHECK_EQ(Find(tables, 1, 0b111).symbol, 3u);
  CHECK_EQ(Find(tables, 2, 0b111).symbol, 3u);
}

int main() { return sparselogits::testing::RunAll(); }
