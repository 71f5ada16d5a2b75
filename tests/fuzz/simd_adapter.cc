// One build of the code that has SIMD paths. Compiled once for each variant: SIMD_VARIANT is its
// name, and the build renames the namespace sparselogits with it.
#include "simd_adapter.h"

#include <bit>
#include <cmath>
#include <vector>

#include "block_input.h"
#include "compact_models.h"
#include "record_script.h"
#include "sparselogits/crc32c.h"
#include "sparselogits/exp_mass.h"
#include "sparselogits/packed_codec.h"
#include "sparselogits/row_kernels.h"
#include "sparselogits/sampler.h"
#include "sparselogits/xxh64.h"

namespace sparselogits::fuzz {
namespace {

// The result of one call.
class Result {
 public:
  void Clear() { bytes_.clear(); }
  template <typename T>
  void Put(T value) {
    const auto* const at = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), at, at + sizeof(T));
  }
  template <typename Range>
  void PutAll(const Range& range) {
    Put(range.size());
    for (size_t i = 0; i < range.size(); ++i) Put(range[i]);
  }
  void PutStatus(const Status& status) {
    Put(status.code());
    Put(status.offset());
    PutAll(status.message());
    PutAll(status.field());
  }
  simd_adapter::Slice slice() const { return {bytes_.data(), bytes_.size()}; }

 private:
  Bytes bytes_;
};

Result& Cleared() {
  static Result result;
  result.Clear();
  return result;
}

// What a codec makes of a content: all of it, and from some position on.
void PutDecoded(const BlockCodec& codec, const RecordFormat& format, ByteSpan content, uint32_t n,
                uint32_t num_entries, Result* result) {
  BlockSections sections;
  result->PutStatus(codec.Check(content, n, num_entries, &sections));
  for (const uint32_t first : {0u, num_entries % n}) {
    RecordBatch batch;
    batch.offsets.Append(0);
    const Status status = codec.Decode(content, n, first, n, &batch, nullptr);
    result->PutStatus(status);
    if (!status.ok()) continue;
    result->PutAll(batch.offsets);
    result->PutAll(batch.token_ids);
    result->PutAll(batch.counts);
    result->PutAll(batch.weights);
  }
  if (!format.store_tokens) return;
  std::vector<int32_t> tokens(n);
  const Status status = codec.DecodeTokens(content, n, 0, n, tokens.data());
  result->PutStatus(status);
  if (status.ok()) result->PutAll(tokens);
}

simd_adapter::Slice Decode(const uint8_t* data, size_t size) {
  Result& result = Cleared();
  const BlockInput block = TakeBlockInput({data, size});
  const PaddedCopy content(block.content);
  PutDecoded(PackedCodec(block.format), block.format, content.span(), block.num_positions,
             block.num_entries, &result);
  return result.slice();
}

simd_adapter::Slice DecodeCompact(const uint8_t* data, size_t size) {
  Result& result = Cleared();
  Input input({data, size});
  const uint8_t number = input.Byte();
  const uint8_t how = input.Byte() % 3;
  const uint32_t n = input.Byte() % kMaxScriptPositions + 1u;
  const RecordFormat& format = FormatOfModel(number).format;
  const CompactCodec& codec = CodecOf(number);
  result.Put(ModelOf(number)->digest());
  Bytes content;
  if (how == 0) {
    content.assign(input.rest().begin(), input.rest().end());
  } else {
    const FlatBlock block = TakeBlock(format, n, &input);
    result.Put(codec.Encode(block.view(format.value_kind), &content));
    result.PutAll(content);
    if (how == 2) Damage(&input, &content);
  }
  PutDecoded(codec, format, PaddedCopy(content).span(), n, static_cast<uint32_t>(size), &result);
  return result.slice();
}

simd_adapter::Slice Hash(const uint8_t* data, size_t size) {
  Result& result = Cleared();
  const size_t half = size / 2;
  const uint32_t whole = ExtendCrc32c(0, data, size);
  FUZZ_CHECK(whole == ExtendCrc32cPortable(0, data, size));
  FUZZ_CHECK(whole == ExtendCrc32c(ExtendCrc32c(0, data, half), data + half, size - half));
  FUZZ_CHECK(whole ==
             ExtendCrc32cPortable(ExtendCrc32cPortable(0, data, half), data + half, size - half));
  result.Put(whole);
  result.Put(Xxh64({data, size}));
  return result.slice();
}

// Every kernel of this build and processor gives the bits of the plain one.
void CompareKernels(const std::vector<float>& logits, float temperature, Result* result) {
  const auto n = static_cast<int64_t>(logits.size());
  const int64_t num_tiles = n / kTile;
  for (const RowKernels& kernels : AvailableKernels()) {
    Result one;
    float max = 0;
    const bool usable = kernels.max(logits.data(), n, &max);
    one.Put(usable);
    if (usable && std::isfinite(max)) {
      one.Put(max);
      std::vector<float> scaled(logits.size());
      kernels.scale(logits.data(), n, temperature, 0.75f, scaled.data());
      one.PutAll(scaled);
      std::vector<int64_t> masses(logits.size());
      kernels.masses(logits.data(), n, max, MassBits(n), masses.data());
      one.PutAll(masses);
    }
    std::vector<float> maxima(static_cast<size_t>(num_tiles));
    std::vector<int64_t> sums(static_cast<size_t>(num_tiles));
    const bool tiles_usable =
        kernels.tile_statistics(logits.data(), num_tiles, maxima.data(), sums.data());
    one.Put(tiles_usable);
    if (tiles_usable) {
      one.PutAll(maxima);
      one.PutAll(sums);
    }
    static Result plain;
    if (&kernels == &AvailableKernels().front()) {
      plain = one;
      result->PutAll(std::vector<uint8_t>(one.slice().data, one.slice().data + one.slice().size));
      continue;
    }
    FUZZ_CHECK(one.slice().size == plain.slice().size);
    FUZZ_CHECK(std::memcmp(one.slice().data, plain.slice().data, plain.slice().size) == 0);
  }
}

// 20 bytes of options, then the logits: two bytes each, a bfloat16, so that one flip changes much.
simd_adapter::Slice SampleRows(const uint8_t* data, size_t size) {
  Result& result = Cleared();
  Input input({data, size});
  SampleOptions options;
  options.rounds = static_cast<int>(input.Below(1024)) + 1;
  options.sampler = static_cast<SamplerKind>(input.Below(3));
  options.temperature = std::bit_cast<float>(static_cast<uint32_t>(input.Number(2)) << 16);
  options.proposal_temperature =
      input.Below(2) == 0 ? 1.0f
                          : std::bit_cast<float>(static_cast<uint32_t>(input.Number(2)) << 16);
  options.self_normalize = input.Below(2) != 0;
  options.seed = input.Number(4);
  const int64_t num_rows = input.Below(3) + 1;
  const PositionKey keys[3] = {{input.Number(4), 0}, {7, 1}, {8, uint64_t{1} << 40}};
  std::vector<float> logits;
  while (!input.empty())
    logits.push_back(std::bit_cast<float>(static_cast<uint32_t>(input.Number(2)) << 16));
  const auto columns = static_cast<int64_t>(logits.size()) / num_rows;
  if (columns == 0) return result.slice();
  const LogitRows rows = {logits.data(), LogitDtype::kFloat32, num_rows, columns, columns};
  if (options.temperature > 0 && std::isfinite(options.temperature))
    CompareKernels(logits, options.temperature, &result);
  Draws draws;
  const Status status = Sample(rows, keys, options, &draws);
  result.PutStatus(status);
  if (!status.ok()) return result.slice();
  result.PutAll(draws.offsets);
  result.PutAll(draws.token_ids);
  result.PutAll(draws.counts);
  result.PutAll(draws.weights);
  return result.slice();
}

}  // namespace
}  // namespace sparselogits::fuzz

#define JOIN(a, b) a##b
#define ENTRY(variant) JOIN(SparselogitsSimd_, variant)
#define TEXT(a) #a
#define NAME(variant) TEXT(variant)

extern "C" const simd_adapter::Variant* ENTRY(SIMD_VARIANT)() {
  static const simd_adapter::Variant variant = {
      NAME(SIMD_VARIANT), sparselogits::fuzz::Decode, sparselogits::fuzz::DecodeCompact,
      sparselogits::fuzz::Hash, sparselogits::fuzz::SampleRows};
  return &variant;
}
