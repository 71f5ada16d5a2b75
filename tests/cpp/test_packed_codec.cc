// The packed codec: round trips of every format, access to any range, hostile content.
#include <cstdlib>
#include <memory>

#include "check.h"
#include "codec_checks.h"
#include "random_block.h"
#include "sparselogits/packed_codec.h"

using namespace sparselogits;
using sparselogits::testing::AllFormats;
using sparselogits::testing::CheckRange;
using sparselogits::testing::Content;
using sparselogits::testing::RandomBlock;
using sparselogits::testing::TotalBits;

TEST(every_format_round_trips) {
  std::mt19937 random(7);
  for (const RecordFormat& format : AllFormats())
    for (const uint32_t n : {1u, 63u, 64u, 65u, 300u})
      for (const int empty_percent : {0, 30, 100}) {
        const RandomBlock block(format, n, empty_percent, &random);
        const PackedCodec codec(format);
        Bytes encoded;
        codec.Encode(block.view(), &encoded);
        const Content content(encoded);
        RecordBatch found;
        CHECK_OK(codec.Decode(content.span(), n, 0, n, &found, nullptr));
        CheckRange(block, format, found, 0, n);
        if (format.store_tokens) {
          std::vector<int32_t> tokens(n);
          CHECK_OK(codec.DecodeTokens(content.span(), n, 0, n, tokens.data()));
          CHECK(std::equal(tokens.begin(), tokens.end(), block.tokens.begin()));
        }
        BlockSections sections;
        CHECK_OK(codec.Check(content.span(), n, static_cast<uint32_t>(block.token_ids.size()),
                             &sections));
        CHECK_EQ(TotalBits(sections), uint64_t{8} * encoded.size());
      }
}

TEST(any_range_of_a_block_decodes_alone) {
  std::mt19937 random(8);
  const RecordFormat format{49152, 50, ValueKind::kCounts, WeightDtype::kNone, false};
  const RandomBlock block(format, 200, 20, &random);
  const PackedCodec codec(format);
  Bytes encoded;
  codec.Encode(block.view(), &encoded);
  const Content content(encoded);
  for (uint32_t first = 0; first <= 200; first += 7)
    for (uint32_t last = first; last <= 200; last += 13) {
      RecordBatch found;
      CHECK_OK(codec.Decode(content.span(), 200, first, last, &found, nullptr));
      CheckRange(block, format, found, first, last);
    }
}

TEST(empty_positions_cost_a_bit) {
  const RecordFormat format{49152, 50, ValueKind::kCounts, WeightDtype::kNone, false};
  std::mt19937 random(9);
  const RandomBlock block(format, 64 * 16, 100, &random);
  Bytes encoded;
  PackedCodec(format).Encode(block.view(), &encoded);
  CHECK(encoded.size() <= 64 * 16 / 8 + 2 * 15 + 4);
}

// Decoding must end in a Status, whatever the bytes are, and touch nothing outside the content.
TEST(mutated_content_is_survived) {
  std::mt19937 random(10);
  int refused = 0;
  for (const RecordFormat& format : AllFormats()) {
    const uint32_t n = 70;
    const RandomBlock block(format, n, 10, &random);
    const PackedCodec codec(format);
    Bytes encoded;
    codec.Encode(block.view(), &encoded);
    for (int round = 0; round < 300; ++round) {
      Bytes mutated = encoded;
      for (uint32_t flips = 1 + random() % 4; flips > 0; --flips)
        mutated[random() % mutated.size()] ^= static_cast<uint8_t>(1u << (random() % 8));
      if (random() % 3 == 0) mutated.resize(random() % mutated.size());
      const Content content(mutated);
      RecordBatch found;
      std::vector<int32_t> tokens(n);
      Status status = codec.Decode(content.span(), n, 0, n, &found, nullptr);
      if (status.ok() && format.store_tokens)
        status = codec.DecodeTokens(content.span(), n, 0, n, tokens.data());
      for (size_t i = 0; i < found.token_ids.size(); ++i)
        CHECK(found.token_ids[i] >= 0 &&
              static_cast<uint32_t>(found.token_ids[i]) < format.vocab_size);
      BlockSections sections;
      const Status checked =
          codec.Check(content.span(), n, static_cast<uint32_t>(block.token_ids.size()), &sections);
      CHECK(!checked.ok() || status.ok());  // the deep check is never more lenient
      refused += status.ok() ? 0 : 1;
    }
  }
  CHECK(refused > 1000);
}

// Reachable in a frame: LZ4 makes 512 MiB of zeros out of 2 MiB.
TEST(an_id_of_2_32_and_more_is_refused_not_wrapped) {
  const RecordFormat format{100, 2, ValueKind::kCounts, WeightDtype::kNone, false};
  constexpr uint64_t kSecondId = (uint64_t{1} << 32) + 5;
  constexpr uint64_t kSecondOne = 3 + kSecondId;  // after two counts and the one of id 0
  const size_t size = 4 + kSecondOne / 8 + 1;
  // From calloc, whose zeros take no memory until they are written.
  const std::unique_ptr<uint8_t, void (*)(void*)> bytes(
      static_cast<uint8_t*>(std::calloc(size + kReadPadding, 1)), std::free);
  CHECK(bytes != nullptr);
  uint8_t* const records = bytes.get() + 4;  // the block's header is all zero
  records[0] = 0b111;                        // counts 1 and 1, and id 0
  records[kSecondOne / 8] = 1 << (kSecondOne % 8);
  RecordBatch found;
  const Status status = PackedCodec(format).Decode({bytes.get(), size}, 1, 0, 1, &found, nullptr);
  CHECK(status.code() == StatusCode::kCorruption);
  CHECK_EQ(status.field(), "ids");
}

int main() { return sparselogits::testing::RunAll(); }
