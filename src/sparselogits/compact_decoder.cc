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
                                                    uint32_t first, uint32_t last,
                                                    RecordBatch* out, int32_t** tokens) {
  BitWindow window(block.records().data(), stretch.begin,
                   block.records().data() + block.records().size());
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

}  // namespace

Status CompactCodec::Decode(ByteSpan content, uint32_t num_positions, uint32_t first,
                            uint32_t last, RecordBatch* out, int32_t* tokens) const {
  if (first == last) return Status::Ok();
  Block block;
  SPARSELOGITS_RETURN_IF_ERROR(Block::Parse(content, format_, num_positions, &block));
  RecordDecoder decoder(format_, *model_);
  if (tokens != nullptr && first == 0) {
    uint32_t token = 0;
    SPARSELOGITS_RETURN_IF_ERROR(block.FirstToken(&token));
    *tokens++ = static_cast<int32_t>(token);
  }
  const uint32_t from = tokens != nullptr && first > 0 ? first - 1 : first;
  for (uint32_t i = from / compact::kStretch; i * compact::kStretch < last; ++i) {
    Block::Stretch stretch;
    SPARSELOGITS_RETURN_IF_ERROR(block.FindStretch(i, &stretch));
    const Met met = DecodeStretch(&decoder, block, stretch, format_.store_tokens, first, last, out,
                                  &tokens);
    if (met.fault != Fault::kNone) return FaultAt(block, met.fault, met.bit);
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
