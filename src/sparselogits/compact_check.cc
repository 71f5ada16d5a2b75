// The deep check of a compact block: all that the format promises, and where each bit goes.
#include <string>

#include "sparselogits/compact_block.h"
#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_record_decoder.h"

namespace sparselogits {

using compact::BitWindow;
using compact::Block;
using compact::Fault;

Status CompactCodec::Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
                           BlockSections* sections) const {
  Block block;
  SPARSELOGITS_RETURN_IF_ERROR(Block::Parse(content, format_, num_positions, &block));
  SPARSELOGITS_RETURN_IF_ERROR(block.CheckPadding());
  uint32_t token = 0;
  if (format_.store_tokens) SPARSELOGITS_RETURN_IF_ERROR(block.FirstToken(&token));
  compact::RecordDecoder decoder(format_, *model_);
  RecordBatch decoded;
  uint64_t used = 0;
  for (uint32_t i = 0; i < block.num_stretches(); ++i) {
    Block::Stretch stretch;
    SPARSELOGITS_RETURN_IF_ERROR(block.FindStretch(i, &stretch));
    BitWindow window = block.WindowAt(stretch);
    uint32_t c = decoder.no_class();
    for (uint32_t position = stretch.first; position < stretch.last; ++position) {
      Fault fault = decoder.Take<true>(&window, &c, sections);
      const uint64_t at = window.position();
      if (fault == Fault::kNone && format_.store_tokens && position + 1 < num_positions)
        fault = decoder.TakeToken<true>(&window, c, &token);
      sections->tokens += window.position() - at;
      if (fault == Fault::kNone) fault = decoder.Store(&decoded);
      if (fault != Fault::kNone) return FaultAt(block, fault, window.position());
    }
    used = window.position();
    const bool is_last = i + 1 == block.num_stretches();
    if (used > stretch.end) return FaultAt(block, Fault::kOverrun, used);
    if (is_last
            ? stretch.end - used >= 8 || window.Take(static_cast<uint32_t>(stretch.end - used)) != 0
            : used != stretch.end)
      return Status::Corruption("a stretch does not end with its last record")
          .Field("stretch_padding")
          .At(static_cast<int64_t>(block.records_offset() + used / 8));
  }
  if (decoded.token_ids.size() != num_entries)
    return Status::Corruption("the block holds " + std::to_string(decoded.token_ids.size()) +
                              " entries, its header says " + std::to_string(num_entries))
        .Field("num_entries")
        .At(0);
  sections->stretch_padding += block.records().size() * 8 - used;
  sections->block_header += compact::kBlockHeaderLength * 8;
  const uint64_t directory = (block.records_offset() - compact::kBlockHeaderLength) * 8;
  const auto first_token =
      static_cast<uint64_t>(format_.store_tokens ? packed::TokenBits(format_.vocab_size) : 0);
  sections->tokens += first_token;
  sections->directory += directory - first_token;
  return Status::Ok();
}

}  // namespace sparselogits
