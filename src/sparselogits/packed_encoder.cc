#include <algorithm>
#include <array>

#include "sparselogits/bit_writer.h"
#include "sparselogits/limits.h"
#include "sparselogits/packed_codec.h"
#include "sparselogits/packed_layout.h"

namespace sparselogits {
namespace {

// The width of the low part that makes the ids of the block smallest: k low parts of l bits each
// and high parts of k + (last id >> l) bits for every record.
int BestLowBits(const BlockView& block) {
  std::array<uint64_t, packed::kMaxLowBits + 1> cost{};
  size_t end = 0;
  for (const uint32_t entries : block.entries) {
    end += entries;
    if (entries == 0) continue;
    const uint32_t last = block.token_ids[end - 1];
    for (size_t l = 0; l < cost.size(); ++l) cost[l] += uint64_t{entries} * l + (last >> l);
  }
  return static_cast<int>(std::min_element(cost.begin(), cost.end()) - cost.begin());
}

void PutIds(std::span<const uint32_t> ids, int low_bits, BitWriter* writer) {
  uint32_t high = 0;
  for (const uint32_t id : ids) {
    writer->PutUnary((id >> low_bits) - high);
    high = id >> low_bits;
  }
  const uint32_t mask = (uint32_t{1} << low_bits) - 1;
  for (const uint32_t id : ids) writer->Put(id & mask, low_bits);
}

}  // namespace

bool PackedCodec::Encode(const BlockView& block, Bytes* out) const {
  const int low_bits = BestLowBits(block);
  const bool has_empty =
      std::find(block.entries.begin(), block.entries.end(), 0u) != block.entries.end();

  Bytes records;
  std::vector<uint32_t> directory;
  BitWriter writer(&records);
  size_t begin = 0;
  for (size_t position = 0; position < block.num_positions(); ++position) {
    if (position > 0 && position % kStretchPositions == 0) {
      writer.Align();
      directory.push_back(static_cast<uint32_t>(records.size()));
    }
    const size_t k = block.entries[position];
    if (has_empty) writer.Put(k > 0, 1);
    if (k == 0) continue;
    if (format_.value_kind == ValueKind::kCounts) {
      for (const uint16_t count : block.counts.subspan(begin, k)) writer.PutGamma(count);
    } else {
      writer.PutGamma(static_cast<uint32_t>(k));
    }
    PutIds(block.token_ids.subspan(begin, k), low_bits, &writer);
    if (format_.value_kind == ValueKind::kWeights) {
      const int width = WeightBits(format_.weight_dtype);
      for (const uint32_t bits : block.weight_bits.subspan(begin, k)) writer.Put(bits, width);
    }
    begin += k;
  }
  writer.Align();

  const bool wide = !directory.empty() && directory.back() > 0xFFFF;
  out->push_back(static_cast<uint8_t>(low_bits));
  out->push_back(static_cast<uint8_t>((has_empty ? packed::kHasEmpty : 0) |
                                      (wide ? packed::kWideDirectory : 0)));
  AppendLittle<uint16_t>(out, 0);
  for (const uint32_t start : directory) {
    if (wide)
      AppendLittle<uint32_t>(out, start);
    else
      AppendLittle<uint16_t>(out, static_cast<uint16_t>(start));
  }
  if (format_.store_tokens) {
    BitWriter token_writer(out);
    for (const uint32_t token : block.tokens) token_writer.Put(token, token_bits_);
    token_writer.Align();
  }
  out->insert(out->end(), records.begin(), records.end());
  return true;
}

}  // namespace sparselogits
