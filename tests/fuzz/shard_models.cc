#include "shard_models.h"

#include "compact_models.h"
#include "record_script.h"
#include "sparselogits/sequence_input.h"
#include "sparselogits/xxh64.h"

namespace sparselogits::fuzz {
namespace {

constexpr size_t kFeatures = 16, kVocabSize = 40, kRounds = 44, kValueKind = 48, kWeightDtype = 49,
                 kCodec = 50, kStoreTokens = 52, kModelDigest = 96;  // offsets in a header
constexpr uint32_t kMaxPositions = 4096;  // of a block whose payload is a script
constexpr auto kCompact = static_cast<uint8_t>(CodecId::kCompact);

// Encodes the records that a payload tells; its first byte says whether they are damaged then.
std::vector<uint32_t> EncodeScript(uint8_t number, PartFrame* frame) {
  const RecordFormat& format = FormatOfModel(number).format;
  const Bytes script = std::move(frame->payload);
  Input input(script);
  const bool is_damaged = input.Byte() >= 192;
  const FlatBlock block = TakeBlock(format, frame->num_items(), &input);
  Bytes content;
  FUZZ_CHECK(CodecOf(number).Encode(block.view(format.value_kind), &content));
  if (is_damaged) Damage(&input, &content);
  frame->header[5] = 0;  // not wrapped
  frame->payload = content;
  Store32(frame->header.data() + 20, block.num_entries());
  return block.tokens;
}

// Sets the fingerprints of the sequences whose tokens are known; `at` is where the first one
// starts.
void StampFingerprints(const std::vector<uint32_t>& tokens, size_t* at, PartFrame* frame) {
  const size_t n = frame->num_items();
  if (frame->is_wrapped() || frame->payload.size() != n * kBytesPerSequence) return;
  for (size_t i = 0; i < n; ++i) {
    const size_t length = Load32(frame->payload.data() + 16 * n + 4 * i);
    if (length > tokens.size() - *at) return;
    Store64(frame->payload.data() + 8 * n + 8 * i,
            FingerprintTokens(std::span(tokens).subspan(*at, length)));
    *at += length;
  }
}

}  // namespace

void NameModel(uint8_t number, std::array<uint8_t, kHeaderLength>* header) {
  (*header)[kCodec] = kCompact;
  Store32(header->data() + kFeatures, Load32(header->data() + kFeatures) | kFeatureCodecModel);
  Store64(header->data() + kModelDigest, number + uint64_t{1});
}

Bytes WithModel(ByteSpan bytes, Models* models) {
  auto parts = ShardParts::Parse(bytes);
  if (!parts || parts->header[kCodec] != kCompact) return {bytes.begin(), bytes.end()};
  uint8_t* const header = parts->header.data();
  const uint64_t named = Load64(header + kModelDigest);
  if (named == 0 || named > 256) return {bytes.begin(), bytes.end()};
  const auto number = static_cast<uint8_t>(named - 1);
  const RecordFormat& format = FormatOfModel(number).format;
  models->push_back(ModelOf(number));
  Store64(header + kModelDigest, models->back()->digest());
  Store32(header + kVocabSize, format.vocab_size);
  Store32(header + kRounds, format.rounds);
  header[kValueKind] = static_cast<uint8_t>(format.value_kind);
  header[kWeightDtype] = static_cast<uint8_t>(format.weight_dtype);
  header[kStoreTokens] = format.store_tokens ? 1 : 0;
  std::vector<uint32_t> tokens;
  size_t sequence_start = 0;
  for (PartFrame& frame : parts->frames) {
    const uint32_t n = frame.num_items();
    if (frame.is(FrameType::kBlock) && frame.header[kCodecOffset] == kCompact && n > 0 &&
        n <= kMaxPositions) {
      const std::vector<uint32_t> of_block = EncodeScript(number, &frame);
      tokens.insert(tokens.end(), of_block.begin(), of_block.end());
    } else if (frame.is(FrameType::kSequences) && format.store_tokens) {
      StampFingerprints(tokens, &sequence_start, &frame);
    }
  }
  return parts->Build({});
}

}  // namespace sparselogits::fuzz
