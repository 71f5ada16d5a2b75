// Training a compact model: the same samples give the same bytes, and any samples give a model.
#include "compact_blocks.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

constexpr RecordFormat kFormat{1000, 50, ValueKind::kCounts, WeightDtype::kNone, true};

}  // namespace

TEST(the_same_samples_give_the_same_bytes) {
  std::mt19937 random(1);
  for (const uint32_t num_classes : {0u, 1u, 16u}) {
    const RandomBlock samples(kFormat, 5000, 10, &random);
    const RandomBlock copy(samples);
    const ModelPtr one = Train(kFormat, samples.view(), num_classes);
    const ModelPtr other = Train(kFormat, copy.view(), num_classes);
    CHECK(one->bytes() == other->bytes());
    CHECK_EQ(one->digest(), other->digest());
  }
}

TEST(other_samples_give_another_model) {
  std::mt19937 random(2);
  CHECK(TrainOnRandom(kFormat, 100, 1, &random)->digest() !=
        TrainOnRandom(kFormat, 100, 1, &random)->digest());
}

TEST(a_model_has_as_many_classes_as_it_is_told) {
  std::mt19937 random(3);
  const RandomBlock samples(kFormat, 3000, 10, &random);
  for (const uint32_t num_classes : {1u, 2u, 33u, 256u})
    CHECK_EQ(Train(kFormat, samples.view(), num_classes)->num_classes(), num_classes);
}

TEST(few_samples_get_one_class_and_many_get_more) {
  std::mt19937 random(4);
  CHECK_EQ(TrainOnRandom(kFormat, 300, 0, &random)->num_classes(), 1u);
  CHECK(TrainOnRandom(kFormat, 10'000, 0, &random)->num_classes() > 1);
}

TEST(a_larger_cache_pays_for_a_larger_model) {
  std::mt19937 random(5);
  const RecordFormat format{49152, 50, ValueKind::kCounts, WeightDtype::kNone, true};
  const RandomBlock samples(format, 10'000, 10, &random);
  size_t smaller = 0;
  for (const uint64_t positions : {uint64_t{10'000}, uint64_t{1} << 40}) {
    TrainingOptions options;
    options.num_classes = 4;
    options.expected_positions = positions;
    ModelPtr model;
    CHECK_OK(TrainModel(format, samples.view(), options, &model));
    CHECK(model->bytes().size() > smaller);
    smaller = model->bytes().size();
  }
}

TEST(one_position_is_enough) {
  std::mt19937 random(6);
  for (const RecordFormat& format : MostFormats())
    for (const uint32_t num_classes : {1u, 7u})
      for (const int empty_percent : {0, 100}) {
        const RandomBlock samples(format, 1, empty_percent, &random);
        const ModelPtr model = Train(format, samples.view(), num_classes);
        const CompactCodec codec(format, model);
        CheckRoundTrip(format, codec, samples);
        CheckRoundTrip(format, codec, RandomBlock(format, 20, 10, &random));
      }
}

TEST(samples_where_everything_is_empty_give_a_model) {
  std::mt19937 random(7);
  for (const size_t n : {3u, 1024u, 5000u})
    for (const uint32_t num_classes : {0u, 1u, 7u}) {
      const RandomBlock samples(kFormat, n, 100, &random);
      const ModelPtr model = Train(kFormat, samples.view(), num_classes);
      CheckRoundTrip(kFormat, {kFormat, model}, samples);
      CheckRoundTrip(kFormat, {kFormat, model}, RandomBlock(kFormat, 100, 10, &random));
    }
}

// What is learnt from may be empty where what the codes are fitted to is not, and the reverse.
TEST(samples_that_are_empty_in_parts_give_a_model) {
  std::mt19937 random(8);
  RandomBlock samples(kFormat, 4096, 100, &random);
  const RandomBlock full(kFormat, 1024, 0, &random);
  const auto append = [&samples](const RandomBlock& part) {
    samples.tokens.insert(samples.tokens.end(), part.tokens.begin(), part.tokens.end());
    samples.entries.insert(samples.entries.end(), part.entries.begin(), part.entries.end());
    samples.token_ids.insert(samples.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
    samples.counts.insert(samples.counts.end(), part.counts.begin(), part.counts.end());
  };
  append(full);
  for (const uint32_t num_classes : {0u, 1u, 7u})
    CheckRoundTrip(kFormat, {kFormat, Train(kFormat, samples.view(), num_classes)}, full);
  RandomBlock mostly_empty(full);
  std::swap(samples, mostly_empty);
  append(RandomBlock(kFormat, 4096, 100, &random));
  for (const uint32_t num_classes : {0u, 1u, 7u})
    CheckRoundTrip(kFormat, {kFormat, Train(kFormat, samples.view(), num_classes)}, full);
}

TEST(the_model_names_the_format_that_it_was_made_for) {
  std::mt19937 random(9);
  for (const RecordFormat& format : MostFormats()) {
    const ModelPtr model = TrainOnRandom(format, 20, 1, &random);
    CHECK(model->format() == format);
    CHECK(FieldThatModelLacks(*model, format) == nullptr);
  }
  const ModelPtr model = TrainOnRandom(kFormat, 20, 1, &random);
  RecordFormat other = kFormat;
  ++other.vocab_size;
  CHECK_EQ(std::string(FieldThatModelLacks(*model, other)), "vocab_size");
  other = kFormat;
  ++other.rounds;
  CHECK_EQ(std::string(FieldThatModelLacks(*model, other)), "rounds");
  other = kFormat;
  other.value_kind = ValueKind::kWeights;
  CHECK_EQ(std::string(FieldThatModelLacks(*model, other)), "value_kind");
}

int main() { return sparselogits::testing::RunAll(); }
