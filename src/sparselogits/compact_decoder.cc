#include <string>

#include "sparselogits/compact_block.h"
#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_record_decoder.h"
#include "sparselogits/dispatch.h"

namespace sparselogits {
namespace compact {

FaultText TextOf(Fault fault) {
  switch (fault) {
    case Fault::kNone: break;
    case Fault::kOverrun: return {"records", "a record runs past the end of its stretch"};
    case Fault::kEntryNumber:
      return {"entry_numbers", "a record claims more entries than rounds, vocab_size or 65,535"};
    case Fault::kCountSum: return {"counts", "the counts of a record sum to more than rounds"};
    case Fault::kBucket: return {"ids", "a gap beyond the last bucket of its class"};
    case Fault::kId: return {"ids", "an id that is in no list, or above vocab_size - 1"};
    case Fault::kIdTwice: return {"ids", "an id occurs twice in a record"};
    case Fault::kWeight: return {"weights", "a weight is NaN or infinite"};
    case Fault::kTokenRank: return {"tokens", "the rank of a token is above the record's entries"};
    case Fault::kTokenBucket: return {"tokens", "a token beyond the last bucket of its class"};
    case Fault::kToken: return {"tokens", "a token that is in no list, or above vocab_size - 1"};
  }
  return {"records", ""};
}

}  // namespace compact

namespace {

using compact::BitWindow;
using compact::Block;
using compact::Fault;
using compact::RecordDecoder;

// Where a fault was met.
struct Met {
  Fault fault = Fault::kNone;
  uint64_t bit = 0;
};

// Decodes what is asked for of one stretch. Tokens stand with the record of the position before
// theirs.
SPARSELOGITS_FASTEST_INSTRUCTIONS Met DecodeStretch(RecordDecoder* decoder, const Block& block,
                                                    const Block::Stretch& stretch, bool has_tokens,
                                                    uint32_t first, uint32_t last, RecordBatch* out,
                                                    int32_t** tokens) {
  BitWindow window = block.WindowAt(stretch);
  uint32_t c = decoder->no_class();
  const uint32_t end = std::min(last, stretch.last);
  for (uint32_t position = stretch.first; position < end; ++position) {
    const bool wants_record = position >= first;
    const bool has_token = has_tokens && position + 1 < block.num_positions();
    const bool wants_token = *tokens != nullptr && position + 1 >= first && position + 1 < last;
    Fault fault = wants_record || wants_token ? decoder->Take<true>(&window, &c)
                                              : decoder->Take<false>(&window, &c);
    if (has_token && fault == Fault::kNone) {
      uint32_t token = 0;
      fault = wants_token ? decoder->TakeToken<true>(&window, c, &token)
                          : decoder->TakeToken<false>(&window, c, &token);
      if (wants_token) *(*tokens)++ = static_cast<int32_t>(token);
    }
    if (wants_record && fault == Fault::kNone) fault = decoder->Store(out);
    if (fault != Fault::kNone) [[unlikely]]
      return {fault, window.position()};
  }
  const bool is_over = window.position() > stretch.end;
  return {is_over ? Fault::kOverrun : Fault::kNone, window.position()};
}

// Two whole stretches that follow each other, side by side: the second one's records, whose place
// is not known yet, go to `second`. Tokens are written up to `last`. False where there is a fault
// in one of them: DecodeStretch then says which.
SPARSELOGITS_FASTEST_INSTRUCTIONS bool DecodeTwoStretches(
    RecordDecoder* decoders, const Block& block, const Block::Stretch* stretches, bool has_tokens,
    uint32_t last, RecordBatch* out, RecordBatch* second, int32_t* tokens) {
  BitWindow windows[2] = {block.WindowAt(stretches[0]), block.WindowAt(stretches[1])};
  uint32_t classes[2] = {decoders[0].no_class(), decoders[1].no_class()};
  for (uint32_t i = 0; i < compact::kStretch; ++i) {
    if (!RecordDecoder::TakeTwo(&decoders[0], &windows[0], &classes[0], &decoders[1], &windows[1],
                                &classes[1]))
      return false;
    for (const uint32_t lane : {0u, 1u}) {
      const uint32_t next = stretches[lane].first + i + 1;
      if (has_tokens && next < block.num_positions()) {
        uint32_t token = 0;
        if (decoders[lane].TakeToken<true>(&windows[lane], classes[lane], &token) != Fault::kNone)
          return false;
        if (tokens != nullptr && next < last)
          tokens[next - stretches[0].first - 1] = static_cast<int32_t>(token);
      }
      if (decoders[lane].Store(lane == 0 ? out : second) != Fault::kNone) return false;
    }
  }
  return windows[0].position() <= stretches[0].end && windows[1].position() <= stretches[1].end;
}

struct Sizes {
  size_t offsets = 0, token_ids = 0, counts = 0, weights = 0;
};

Sizes SizesOf(const RecordBatch& batch) {
  return {batch.offsets.size(), batch.token_ids.size(), batch.counts.size(), batch.weights.size()};
}

void Truncate(RecordBatch* batch, const Sizes& sizes) {
  batch->offsets.Truncate(sizes.offsets);
  batch->token_ids.Truncate(sizes.token_ids);
  batch->counts.Truncate(sizes.counts);
  batch->weights.Truncate(sizes.weights);
}

template <typename T>
void AppendTo(const Buffer<T>& from, Buffer<T>* to) {
  to->EnsureRoom(from.size());
  std::copy_n(from.data(), from.size(), to->end());
  to->Advance(from.size());
}

// Appends records whose offsets count from 0, and empties them.
void MoveRecords(RecordBatch* from, RecordBatch* to) {
  const auto base = static_cast<int64_t>(to->token_ids.size());
  for (const int64_t offset : from->offsets.span()) to->offsets.Append(base + offset);
  AppendTo(from->token_ids, &to->token_ids);
  AppendTo(from->counts, &to->counts);
  AppendTo(from->weights, &to->weights);
  Truncate(from, {});
}

}  // namespace

Status CompactCodec::Decode(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                            RecordBatch* out, int32_t* tokens) const {
  if (first == last) return Status::Ok();
  Block block;
  SPARSELOGITS_RETURN_IF_ERROR(Block::Parse(content, format_, num_positions, &block));
  if (tokens != nullptr && first == 0) {
    uint32_t token = 0;
    SPARSELOGITS_RETURN_IF_ERROR(block.FirstToken(&token));
    *tokens++ = static_cast<int32_t>(token);
  }
  RecordDecoder decoders[2] = {{format_, *model_}, {format_, *model_}};
  RecordBatch second;
  const uint32_t from = tokens != nullptr && first > 0 ? first - 1 : first;
  for (uint32_t i = from / compact::kStretch; i * compact::kStretch < last;) {
    Block::Stretch stretches[2];
    SPARSELOGITS_RETURN_IF_ERROR(block.FindStretch(i, &stretches[0]));
    if (stretches[0].first >= first && stretches[0].first + 2 * compact::kStretch <= last) {
      SPARSELOGITS_RETURN_IF_ERROR(block.FindStretch(i + 1, &stretches[1]));
      const Sizes before = SizesOf(*out);
      if (DecodeTwoStretches(decoders, block, stretches, format_.store_tokens, last, out, &second,
                             tokens)) {
        MoveRecords(&second, out);
        if (tokens != nullptr)
          tokens += std::min(2 * compact::kStretch, last - stretches[0].first - 1);
        i += 2;
        continue;
      }
      Truncate(out, before);
      Truncate(&second, {});
    }
    const Met met = DecodeStretch(&decoders[0], block, stretches[0], format_.store_tokens, first,
                                  last, out, &tokens);
    if (met.fault != Fault::kNone) return FaultAt(block, met.fault, met.bit);
    ++i;
  }
  return Status::Ok();
}

Status CompactCodec::FaultAt(const Block& block, Fault fault, uint64_t bit) {
  const compact::FaultText text = TextOf(fault);
  const uint64_t at = std::min<uint64_t>(bit / 8, block.records().size());
  return Status::Corruption(text.what)
      .Field(text.field)
      .At(static_cast<int64_t>(block.records_offset() + at));
}

}  // namespace sparselogits
