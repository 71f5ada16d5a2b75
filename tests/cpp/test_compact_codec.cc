// The compact codec: round trips of every format, access to any range, extremes.
#include "compact_blocks.h"
#include "sparselogits/limits.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

constexpr RecordFormat kCounts{49152, 50, ValueKind::kCounts, WeightDtype::kNone, true};
constexpr RecordFormat kWeights{49152, 50, ValueKind::kWeights, WeightDtype::kFloat16, true};

RandomBlock EmptyBlock(const RecordFormat& format) {
  std::mt19937 random;
  return RandomBlock(format, 0, 0, &random);
}

// `k` different ids, ascending; below `vocab_size`.
std::vector<uint32_t> RandomIds(uint32_t k, uint32_t vocab_size, std::mt19937* random) {
  std::set<uint32_t> ids;
  while (ids.size() < k) ids.insert(static_cast<uint32_t>((*random)() % vocab_size));
  return {ids.begin(), ids.end()};
}

// k counts of 1, but for one that takes what is left.
std::vector<uint32_t> CountsOf(uint32_t k, uint32_t rounds, std::mt19937* random) {
  std::vector<uint32_t> counts(k, 1);
  counts[(*random)() % k] += rounds - k;
  return counts;
}

}  // namespace

TEST(every_format_round_trips_at_every_length) {
  std::mt19937 random(1);
  for (const RecordFormat& format : AllFormats())
    for (const uint32_t num_classes : {1u, 5u}) {
      const CompactCodec codec(format, TrainOnRandom(format, 300, num_classes, &random));
      for (const uint32_t n : {1u, 15u, 16u, 17u, 63u, 64u, 65u})
        for (const int empty_percent : {0, 30, 100})
          CheckRoundTrip(format, codec, RandomBlock(format, n, empty_percent, &random));
    }
}

TEST(long_blocks_round_trip_with_models_of_themselves_and_of_others) {
  std::mt19937 random(2);
  for (const RecordFormat& format : {kCounts, kWeights})
    for (const uint32_t num_classes : {1u, 2u, 64u, 256u}) {
      const RandomBlock block(format, 1000, 20, &random);
      CheckRoundTrip(format, {format, Train(format, block.view(), num_classes)}, block);
      CheckRoundTrip(format, {format, TrainOnRandom(format, 2000, num_classes, &random)}, block);
    }
}

TEST(any_range_of_a_block_decodes_alone) {
  std::mt19937 random(3);
  RecordFormat without_tokens = kCounts;
  without_tokens.store_tokens = false;
  for (const RecordFormat& format : {kCounts, kWeights, without_tokens}) {
    const CompactCodec codec(format, TrainOnRandom(format, 500, 4, &random));
    const uint32_t n = 70;
    const RandomBlock block(format, n, 20, &random);
    const Content content(Encoded(codec, block));
    for (uint32_t first = 0; first <= n; ++first)
      for (uint32_t last = first; last <= n; ++last)
        CheckDecodes(codec, format, block, content.span(), first, last);
    RecordBatch found;
    CHECK_OK(codec.Decode(content.span(), n, 9, 40, &found, nullptr));
    CheckRange(block, format, found, 9, 40);
  }
}

TEST(a_model_that_codes_tokens_also_codes_records_without) {
  std::mt19937 random(4);
  RecordFormat without_tokens = kCounts;
  without_tokens.store_tokens = false;
  const ModelPtr model = TrainOnRandom(kCounts, 500, 4, &random);
  CHECK(FieldThatModelLacks(*model, without_tokens) == nullptr);
  CheckRoundTrip(without_tokens, {without_tokens, model},
                 RandomBlock(without_tokens, 100, 20, &random));
}

TEST(a_block_is_coded_the_same_whatever_was_coded_before_and_behind_what_is_there) {
  std::mt19937 random(5);
  const CompactCodec codec(kCounts, TrainOnRandom(kCounts, 500, 8, &random));
  const RandomBlock one(kCounts, 100, 10, &random), other(kCounts, 30, 50, &random);
  const Bytes first = Encoded(codec, one);
  Bytes all = Encoded(codec, other);
  const size_t before = all.size();
  CHECK(codec.Encode(one.view(), &all));
  CHECK(Bytes(all.begin() + static_cast<ptrdiff_t>(before), all.end()) == first);
}

TEST(records_of_any_number_of_entries_round_trip) {
  std::mt19937 random(6);
  for (RecordFormat format : {kCounts, kWeights}) {
    format.rounds = 700;
    const ModelPtr model = TrainOnRandom(format, 300, 3, &random);
    RandomBlock block = EmptyBlock(format);
    for (const uint32_t k : {1u, 40u, 63u, 64u, 65u, 66u, 127u, 128u, 129u, 500u, 699u, 700u}) {
      const std::vector<uint32_t> ids = RandomIds(k, format.vocab_size, &random);
      const uint32_t token = random() % 2 == 0 ? ids[random() % k] : random() % format.vocab_size;
      AppendRecord(format, token, ids, CountsOf(k, format.rounds, &random), &block);
    }
    CheckRoundTrip(format, {format, model}, block);
  }
}

TEST(as_many_entries_as_rounds_and_one_entry_of_all_rounds_round_trip) {
  std::mt19937 random(7);
  for (const uint32_t vocab_size : {kMaxEntriesPerRecord, kMaxVocabSize}) {
    const RecordFormat format{vocab_size, kMaxRounds, ValueKind::kCounts, WeightDtype::kNone, true};
    const ModelPtr model = TrainOnRandom(format, 100, 2, &random);
    RandomBlock block = EmptyBlock(format);
    for (int i = 0; i < 4; ++i) {
      const std::vector<uint32_t> ids = RandomIds(kMaxRounds, vocab_size, &random);
      AppendRecord(format, ids[random() % ids.size()], ids, std::vector<uint32_t>(kMaxRounds, 1),
                   &block);
      AppendRecord(format, ids.back(), {ids.front()}, {kMaxRounds}, &block);
    }
    CheckRoundTrip(format, {format, model}, block);
  }
}

TEST(ids_that_the_model_has_never_seen_round_trip) {
  std::mt19937 random(8);
  for (const RecordFormat& format : {kCounts, kWeights}) {
    RecordFormat narrow = format;
    narrow.vocab_size = 100;
    const RandomBlock samples(narrow, 500, 10, &random);
    for (const uint32_t num_classes : {1u, 8u}) {
      const ModelPtr model = Train(format, samples.view(), num_classes);
      CheckRoundTrip(format, {format, model}, RandomBlock(format, 200, 10, &random));
    }
  }
}

TEST(a_symbol_without_a_code_makes_encode_return_false_and_append_nothing) {
  std::mt19937 random(10);
  for (const RecordFormat& format : {kCounts, kWeights}) {
    const ModelPtr model = TrainOnRandom(format, 300, 3, &random);
    const RandomBlock block(format, 100, 10, &random);
    int tried = 0;
    for (size_t f = 0; f < compact::kNumFamilies; ++f) {
      const auto family = static_cast<compact::Family>(f);
      const auto shape = compact::ShapeOf(family, format, model->num_classes());
      // Without codes for the other classes all positions are of the one.
      if (!shape.is_used() || family == compact::Family::kClass) continue;
      ++tried;
      const CompactCodec codec(format, WithLoneSymbol(*model, family, shape.num_symbols - 1));
      Bytes out = {1, 2, 3};
      CHECK(!codec.Encode(block.view(), &out));
      CHECK(out == (Bytes{1, 2, 3}));
    }
    CHECK_EQ(tried, format.value_kind == ValueKind::kCounts ? 6 : 5);
  }
}

TEST(positions_are_of_a_class_that_has_a_code) {
  std::mt19937 random(11);
  const ModelPtr model =
      WithLoneSymbol(*TrainOnRandom(kCounts, 300, 3, &random), compact::Family::kClass, 2);
  CheckRoundTrip(kCounts, {kCounts, model}, RandomBlock(kCounts, 100, 10, &random));
}

TEST(empty_positions_cost_little) {
  std::mt19937 random(12);
  RecordFormat format = kCounts;
  format.store_tokens = false;
  const RandomBlock block(format, 1024, 100, &random);
  const CompactCodec codec(format, Train(format, block.view(), 1));
  CHECK(Encoded(codec, block).size() <= 1024 / 8 + 32);
}

int main() { return sparselogits::testing::RunAll(); }
