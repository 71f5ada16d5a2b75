// Damaged content of compact blocks: what is decoded from it is refused or something that a writer
// could have been given, nothing outside it is touched, and the deep check is never more lenient.
#include "compact_blocks.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

// Vocabularies and rounds that do not fill their fields.
constexpr RecordFormat kCounts{1000, 20, ValueKind::kCounts, WeightDtype::kNone, true};
constexpr RecordFormat kWeights{1000, 20, ValueKind::kWeights, WeightDtype::kFloat16, true};

RecordFormat WithoutTokens(RecordFormat format) {
  format.store_tokens = false;
  return format;
}

// Whether content that nobody vouches for is decoded.
bool Survives(const CompactCodec& codec, const RecordFormat& format, const Bytes& bytes,
              uint32_t num_positions) {
  const Content content(bytes);
  const Decoded all(codec, format, content.span(), num_positions, 0, num_positions);
  if (all.status.ok()) {
    CHECK_EQ(all.batch.offsets.size(), size_t{num_positions});
    CheckValid(format, all.batch, all.tokens);
  } else {
    CHECK(all.status.code() == StatusCode::kCorruption);
    CHECK(!all.status.field().empty());
    CHECK(all.status.offset() >= 0 && all.status.offset() <= static_cast<int64_t>(bytes.size()));
  }
  const uint32_t first = num_positions / 2;
  const Decoded part(codec, format, content.span(), num_positions, first, num_positions);
  if (part.status.ok()) CheckValid(format, part.batch, part.tokens);
  CHECK(part.status.ok() || !all.status.ok());
  if (!all.status.ok()) {
    BlockSections unused;
    CHECK(!codec.Check(content.span(), num_positions, 0, &unused).ok());
    return false;
  }
  BlockSections sections;
  const auto entries = static_cast<uint32_t>(all.batch.token_ids.size());
  if (codec.Check(content.span(), num_positions, entries, &sections).ok())
    CHECK_EQ(TotalBits(sections), uint64_t{8} * bytes.size());
  return true;
}

bool IsSound(const CompactCodec& codec, const Bytes& bytes, uint32_t num_positions,
             uint32_t num_entries) {
  BlockSections unused;
  return codec.Check(Content(bytes).span(), num_positions, num_entries, &unused).ok();
}

}  // namespace

TEST(every_flipped_bit_is_refused_or_gives_valid_records) {
  std::mt19937 random(1);
  for (const RecordFormat& format :
       {kCounts, kWeights, WithoutTokens(kCounts), WithoutTokens(kWeights)})
    for (const uint32_t num_classes : {1u, 6u}) {
      const CompactCodec codec(format, TrainOnRandom(format, 300, num_classes, &random));
      for (const uint32_t n : {1u, 2u, 17u, 40u}) {
        const RandomBlock block(format, n, 10, &random);
        Bytes bytes = Encoded(codec, block);
        int refused = 0;
        for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
          bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
          refused += Survives(codec, format, bytes, n) ? 0 : 1;
          bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
        }
        CHECK(refused > 8);
      }
    }
}

TEST(content_that_is_cut_anywhere_is_refused) {
  std::mt19937 random(2);
  for (const RecordFormat& format : {kCounts, kWeights, WithoutTokens(kCounts)}) {
    const CompactCodec codec(format, TrainOnRandom(format, 300, 4, &random));
    for (const uint32_t n : {1u, 16u, 40u}) {
      const Bytes bytes = Encoded(codec, RandomBlock(format, n, 10, &random));
      for (size_t length = 0; length < bytes.size(); ++length) {
        const Bytes cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length));
        CHECK(!Survives(codec, format, cut, n));
      }
    }
  }
}

TEST(bytes_behind_the_content_are_not_sound) {
  std::mt19937 random(3);
  const CompactCodec codec(kCounts, TrainOnRandom(kCounts, 300, 4, &random));
  const RandomBlock block(kCounts, 40, 10, &random);
  const auto entries = static_cast<uint32_t>(block.token_ids.size());
  Bytes bytes = Encoded(codec, block);
  CHECK(IsSound(codec, bytes, 40, entries));
  CHECK(!IsSound(codec, bytes, 39, entries));
  CHECK(!IsSound(codec, bytes, 41, entries));
  CHECK(!IsSound(codec, bytes, 40, entries - 1));
  bytes.push_back(0);
  CHECK(!IsSound(codec, bytes, 40, entries));
}

TEST(padding_that_is_not_zero_is_not_sound) {
  std::mt19937 random(8);
  const CompactCodec codec(kCounts, TrainOnRandom(kCounts, 300, 4, &random));
  int tried = 0;
  for (uint32_t n = 17; n < 64; ++n) {
    const RandomBlock block(kCounts, n, 10, &random);
    const auto entries = static_cast<uint32_t>(block.token_ids.size());
    Bytes bytes = Encoded(codec, block);
    BlockSections sections;
    CHECK_OK(codec.Check(Content(bytes).span(), n, entries, &sections));
    const uint32_t first_token = 10, num_stretches = (n + 15) / 16;
    const uint32_t directory = first_token + (num_stretches - 1) * bytes[0];
    const size_t records = compact::kBlockHeaderLength + (directory + 7) / 8;
    const auto refuses = [&](size_t at, const char* field) {
      ++tried;
      bytes[at] ^= 0x80;
      BlockSections unused;
      const Status status = codec.Check(Content(bytes).span(), n, entries, &unused);
      bytes[at] ^= 0x80;
      CHECK(!status.ok());
      CHECK_EQ(status.field(), field);
    };
    if (directory % 8 != 0) refuses(records - 1, "directory");
    const uint64_t used = sections.classes + sections.entry_numbers + sections.counts +
                          sections.ids + sections.tokens - first_token;
    if (used % 8 != 0) refuses(bytes.size() - 1, "stretch_padding");
  }
  CHECK(tried > 50);
}

// Where the rounds are not the largest value of their symbol: 51 ... 55 are coded like 50.
TEST(more_entries_than_rounds_are_refused) {
  std::mt19937 random(9);
  const RecordFormat format{1u << 16, 50, ValueKind::kCounts, WeightDtype::kNone, false};
  // A model that lists no id, so that any bits are ids.
  ModelPtr model = Train(format, RandomBlock(format, 20, 100, &random).view());
  model = WithLoneSymbol(*model, compact::Family::kEntryNumber, SplitValue(50).symbol);
  model = WithLoneSymbol(*model, compact::Family::kCountPair, 0);
  const CompactCodec codec(format, WithLoneSymbol(*model, compact::Family::kGap, 0));
  int decoded = 0, refused = 0;
  for (int round = 0; round < 100; ++round) {
    Bytes bytes(compact::kBlockHeaderLength, 0);
    for (int i = 0; i < 200; ++i) bytes.push_back(static_cast<uint8_t>(random()));
    const Decoded found(codec, format, Content(bytes).span(), 1, 0, 1);
    if (found.status.ok()) {
      CheckValid(format, found.batch, found.tokens);
      ++decoded;
    } else if (found.status.field() == "entry_numbers") {
      ++refused;
    }
  }
  CHECK(decoded > 10);
  CHECK(refused > 30);
}

TEST(content_of_one_value_is_survived) {
  std::mt19937 random(4);
  for (const RecordFormat& format : MostFormats())
    for (const uint32_t num_classes : {1u, 3u}) {
      const CompactCodec codec(format, TrainOnRandom(format, 50, num_classes, &random));
      for (const uint8_t value : {0x00, 0xFF, 0x01, 0x80, 0xAA})
        for (const size_t size : {0u, 1u, 11u, 12u, 15u, 16u, 17u, 40u, 1000u})
          for (const uint32_t n : {1u, 16u, 17u, 1024u})
            Survives(codec, format, Bytes(size, value), n);
    }
}

// With a header that was written, so that the records are reached.
TEST(records_of_one_value_or_of_any_are_survived) {
  std::mt19937 random(5);
  int decoded = 0;
  for (const RecordFormat& format : MostFormats()) {
    const CompactCodec codec(format, TrainOnRandom(format, 100, 3, &random));
    for (const uint32_t n : {5u, 40u}) {
      const Bytes bytes = Encoded(codec, RandomBlock(format, n, 10, &random));
      for (int round = 0; round < 20; ++round) {
        Bytes mutated = bytes;
        const size_t from = compact::kBlockHeaderLength + random() % 12;
        for (size_t i = from; i < mutated.size(); ++i)
          mutated[i] = static_cast<uint8_t>(round == 0 ? 0 : round == 1 ? 255 : random());
        decoded += Survives(codec, format, mutated, n) ? 1 : 0;
      }
    }
  }
  CHECK(decoded > 20);
}

TEST(mutated_content_is_survived_in_every_format) {
  std::mt19937 random(6);
  int refused = 0;
  for (const RecordFormat& format : MostFormats()) {
    const uint32_t n = 70;
    const CompactCodec codec(format, TrainOnRandom(format, 100, 3, &random));
    const Bytes encoded = Encoded(codec, RandomBlock(format, n, 10, &random));
    for (int round = 0; round < 100; ++round) {
      Bytes mutated = encoded;
      for (uint32_t flips = 1 + random() % 4; flips > 0; --flips)
        mutated[random() % mutated.size()] ^= static_cast<uint8_t>(1u << (random() % 8));
      if (random() % 3 == 0) mutated.resize(random() % mutated.size());
      refused += Survives(codec, format, mutated, n) ? 0 : 1;
    }
  }
  CHECK(refused > 1000);
}

TEST(a_block_read_with_another_model_is_survived) {
  std::mt19937 random(7);
  const CompactCodec codec(kCounts, TrainOnRandom(kCounts, 300, 6, &random));
  const CompactCodec other(kCounts, TrainOnRandom(kCounts, 300, 3, &random));
  for (int round = 0; round < 50; ++round)
    Survives(other, kCounts, Encoded(codec, RandomBlock(kCounts, 40, 10, &random)), 40);
}

int main() { return sparselogits::testing::RunAll(); }
