// The packed codec against a slow decoder written from the specification: the same records, or both
// refuse.
#include <bit>
#include <vector>

#include "block_input.h"
#include "slow_packed_decoder.h"
#include "sparselogits/half.h"
#include "sparselogits/packed_codec.h"

using namespace sparselogits;
using namespace sparselogits::fuzz;

namespace {

// Records in one flat form, comparable whatever they came from.
struct Flat {
  std::vector<uint32_t> entries, token_ids, values;
  bool operator==(const Flat&) const = default;
};

void Append(const SlowRecord& record, Flat* flat) {
  flat->entries.push_back(static_cast<uint32_t>(record.token_ids.size()));
  flat->token_ids.insert(flat->token_ids.end(), record.token_ids.begin(), record.token_ids.end());
  flat->values.insert(flat->values.end(), record.values.begin(), record.values.end());
}

// The value of a slow record as the fast decoder gives it: weights widened to float32.
void Widen(const RecordFormat& format, Flat* flat) {
  if (format.value_kind == ValueKind::kCounts) return;
  for (uint32_t& value : flat->values)
    value = std::bit_cast<uint32_t>(WeightFromBits(value, format.weight_dtype));
}

// False where the decoder refuses. What it gives must be consistent in itself.
bool Decode(const BlockCodec& codec, const BlockInput& block, ByteSpan content, uint32_t first,
            uint32_t last, Flat* flat) {
  RecordBatch batch;
  batch.offsets.Append(0);
  if (!codec.Decode(content, block.num_positions, first, last, &batch, nullptr).ok()) return false;
  FUZZ_CHECK(batch.offsets.size() == size_t{last} - first + 1);
  FUZZ_CHECK(batch.offsets[last - first] == static_cast<int64_t>(batch.token_ids.size()));
  const bool is_counts = block.format.value_kind == ValueKind::kCounts;
  FUZZ_CHECK((is_counts ? batch.counts.size() : batch.weights.size()) == batch.token_ids.size());
  for (uint32_t i = 0; i < last - first; ++i)
    flat->entries.push_back(static_cast<uint32_t>(batch.offsets[i + 1] - batch.offsets[i]));
  for (size_t i = 0; i < batch.token_ids.size(); ++i) {
    flat->token_ids.push_back(static_cast<uint32_t>(batch.token_ids[i]));
    flat->values.push_back(is_counts ? batch.counts[i] : std::bit_cast<uint32_t>(batch.weights[i]));
  }
  return true;
}

// Every position alone. A position behind a bad record of its stretch may be given or refused: a
// decoder need not look at the others (section 5.2).
std::vector<bool> CheckSinglePositions(const BlockCodec& codec, const BlockInput& block,
                                       ByteSpan content, const SlowPackedDecoder& slow,
                                       std::vector<Flat>* singles) {
  std::vector<bool> given(block.num_positions);
  for (uint32_t p = 0; p < block.num_positions; ++p) {
    Flat fast;
    given[p] = Decode(codec, block, content, p, p + 1, &fast);
    const bool first_bad =
        !slow.has_layout() || (!slow.record(p) && (p % 64 == 0 || slow.record(p - 1)));
    FUZZ_CHECK(!given[p] || !first_bad);
    if (slow.has_layout() && slow.record(p)) {
      Flat expected;
      Append(*slow.record(p), &expected);
      Widen(block.format, &expected);
      FUZZ_CHECK(given[p] && fast == expected);
    }
    singles->push_back(std::move(fast));
  }
  return given;
}

// A range gives what its positions give alone, and is refused where one of them is.
void CheckRange(const BlockCodec& codec, const BlockInput& block, ByteSpan content, uint32_t first,
                uint32_t last, const std::vector<bool>& given, const std::vector<Flat>& singles) {
  Flat range, joined;
  const bool range_given = Decode(codec, block, content, first, last, &range);
  bool all_given = true;
  for (uint32_t p = first; p < last; ++p) {
    all_given = all_given && given[p];
    joined.entries.insert(joined.entries.end(), singles[p].entries.begin(),
                          singles[p].entries.end());
    joined.token_ids.insert(joined.token_ids.end(), singles[p].token_ids.begin(),
                            singles[p].token_ids.end());
    joined.values.insert(joined.values.end(), singles[p].values.begin(), singles[p].values.end());
  }
  FUZZ_CHECK(range_given == all_given);
  FUZZ_CHECK(!range_given || range == joined);
}

std::vector<uint32_t> CheckTokens(const BlockCodec& codec, const BlockInput& block,
                                  ByteSpan content, const SlowPackedDecoder& slow) {
  if (!block.format.store_tokens) return {};
  std::vector<int32_t> fast(block.num_positions);
  const bool given =
      codec.DecodeTokens(content, block.num_positions, 0, block.num_positions, fast.data()).ok();
  FUZZ_CHECK(given == (slow.has_layout() && slow.tokens().size() == block.num_positions));
  if (!given) return {};
  FUZZ_CHECK(std::equal(fast.begin(), fast.end(), slow.tokens().begin(), slow.tokens().end(),
                        [](int32_t a, uint32_t b) { return a == static_cast<int64_t>(b); }));
  return slow.tokens();
}

// What is accepted can be written again, and reads the same.
void CheckReencoded(const BlockCodec& codec, const BlockInput& block, const SlowPackedDecoder& slow,
                    const std::vector<uint32_t>& tokens) {
  Flat records;
  for (uint32_t p = 0; p < block.num_positions; ++p) Append(*slow.record(p), &records);
  const std::vector<uint16_t> counts(records.values.begin(), records.values.end());
  BlockView view;
  view.tokens = tokens;
  view.entries = records.entries;
  view.token_ids = records.token_ids;
  view.counts = counts;
  view.weight_bits = records.values;
  Bytes encoded;
  codec.Encode(view, &encoded);
  const PaddedCopy padded(encoded);
  BlockSections sections;
  FUZZ_CHECK_OK(codec.Check(padded.span(), block.num_positions,
                            static_cast<uint32_t>(records.token_ids.size()), &sections));
  Flat again;
  FUZZ_CHECK(Decode(codec, block, padded.span(), 0, block.num_positions, &again));
  Widen(block.format, &records);
  FUZZ_CHECK(again == records);
  if (!block.format.store_tokens) return;
  const SlowPackedDecoder slow_again(padded.span(), block.format, block.num_positions);
  FUZZ_CHECK(slow_again.sound() && slow_again.tokens() == tokens);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const BlockInput block = TakeBlockInput({data, size});
  const PaddedCopy padded(block.content);
  const ByteSpan content = padded.span();
  const PackedCodec codec(block.format);
  const SlowPackedDecoder slow(content, block.format, block.num_positions);

  BlockSections sections;
  const auto check = [&](uint64_t num_entries) {
    return codec.Check(content, block.num_positions, static_cast<uint32_t>(num_entries), &sections)
        .ok();
  };
  FUZZ_CHECK(check(block.num_entries) == (slow.sound() && slow.num_entries() == block.num_entries));
  if (slow.sound()) FUZZ_CHECK(check(slow.num_entries()));

  std::vector<Flat> singles;
  const std::vector<bool> given = CheckSinglePositions(codec, block, content, slow, &singles);
  const uint32_t n = block.num_positions;
  CheckRange(codec, block, content, 0, n, given, singles);
  CheckRange(codec, block, content, block.num_entries % n, n, given, singles);
  CheckRange(codec, block, content, n / 3, n - n / 4, given, singles);
  const std::vector<uint32_t> tokens = CheckTokens(codec, block, content, slow);
  if (slow.sound()) CheckReencoded(codec, block, slow, tokens);
  return 0;
}
