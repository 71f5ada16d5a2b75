// Models, blocks and their checks for the tests of the compact codec.
#pragma once

#include <numeric>

#include "codec_checks.h"
#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_trainer.h"

namespace sparselogits::testing {

// All formats, but the largest vocabulary, whose trainer and encoder have arrays to match, once for
// each kind of token.
inline std::vector<RecordFormat> MostFormats() {
  std::vector<RecordFormat> formats = AllFormats();
  std::erase_if(formats, [](const RecordFormat& format) {
    return format.vocab_size == 1u << 24 && format.rounds != 50;
  });
  return formats;
}

inline ModelPtr Train(const RecordFormat& format, const BlockView& samples,
                      uint32_t num_classes = 0) {
  ModelPtr model;
  TrainingOptions options;
  options.num_classes = num_classes;
  CHECK_OK(TrainModel(format, samples, options, &model));
  return model;
}

inline ModelPtr TrainOnRandom(const RecordFormat& format, size_t num_positions,
                              uint32_t num_classes, std::mt19937* random) {
  return Train(format, RandomBlock(format, num_positions, 10, random).view(), num_classes);
}

// Puts a record behind a block's others. `values`: counts, or bits of weights.
inline void AppendRecord(const RecordFormat& format, uint32_t token,
                         const std::vector<uint32_t>& ids, const std::vector<uint32_t>& values,
                         RandomBlock* block) {
  block->tokens.push_back(token);
  block->entries.push_back(static_cast<uint32_t>(ids.size()));
  block->token_ids.insert(block->token_ids.end(), ids.begin(), ids.end());
  if (format.value_kind == ValueKind::kCounts)
    block->counts.insert(block->counts.end(), values.begin(), values.end());
  else
    block->weight_bits.insert(block->weight_bits.end(), values.begin(), values.end());
}

// The model without the codes of all symbols of a family but one.
inline ModelPtr WithLoneSymbol(const CompactModel& model, compact::Family family, size_t symbol) {
  ModelContent content = model.content();
  for (auto& lengths : content.families[static_cast<size_t>(family)].lengths) {
    lengths.assign(lengths.size(), 0);
    lengths.at(symbol) = 1;
  }
  ModelPtr changed;
  CHECK_OK(CompactModel::Parse(EncodeModel(content), &changed));
  return changed;
}

struct Decoded {
  Decoded(const BlockCodec& codec, const RecordFormat& format, ByteSpan content,
          uint32_t num_positions, uint32_t first, uint32_t last) {
    if (format.store_tokens) tokens.resize(last - first);
    status = codec.Decode(content, num_positions, first, last, &batch,
                          format.store_tokens ? tokens.data() : nullptr);
  }
  Status status;
  RecordBatch batch;
  std::vector<int32_t> tokens;
};

inline void CheckDecodes(const BlockCodec& codec, const RecordFormat& format,
                         const RandomBlock& block, ByteSpan content, uint32_t first,
                         uint32_t last) {
  const auto n = static_cast<uint32_t>(block.entries.size());
  const Decoded found(codec, format, content, n, first, last);
  CHECK_OK(found.status);
  CheckRange(block, format, found.batch, first, last);
  CHECK(std::equal(found.tokens.begin(), found.tokens.end(), block.tokens.begin() + first));
  if (!format.store_tokens) return;
  std::vector<int32_t> tokens(last - first);
  CHECK_OK(codec.DecodeTokens(content, n, first, last, tokens.data()));
  CHECK(tokens == found.tokens);
}

inline Bytes Encoded(const BlockCodec& codec, const RandomBlock& block) {
  Bytes encoded;
  CHECK(codec.Encode(block.view(), &encoded));
  return encoded;
}

// Encodes, decodes and checks a block; returns what its bits are.
inline BlockSections CheckRoundTrip(const RecordFormat& format, const CompactCodec& codec,
                                    const RandomBlock& block) {
  const Bytes encoded = Encoded(codec, block);
  const Content content(encoded);
  const auto n = static_cast<uint32_t>(block.entries.size());
  CheckDecodes(codec, format, block, content.span(), 0, n);
  BlockSections sections;
  const auto entries = static_cast<uint32_t>(block.token_ids.size());
  CHECK_OK(codec.Check(content.span(), n, entries, &sections));
  CHECK_EQ(TotalBits(sections), uint64_t{8} * encoded.size());
  BlockSections unused;
  CHECK(!codec.Check(content.span(), n, entries + 1, &unused).ok());
  return sections;
}

}  // namespace sparselogits::testing
