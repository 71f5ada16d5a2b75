// The deep check of a packed block: all that the format promises, and where each bit goes.
#include <algorithm>
#include <string>
#include <vector>

#include "sparselogits/bit_reader.h"
#include "sparselogits/limits.h"
#include "sparselogits/packed_codec.h"
#include "sparselogits/packed_cursor.h"
#include "sparselogits/packed_layout.h"

namespace sparselogits {

Status PackedCodec::Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
                          BlockSections* sections) const {
  Layout layout;
  SPARSELOGITS_RETURN_IF_ERROR(ParseLayout(content, num_positions, &layout));
  RecordBatch decoded;
  for (uint32_t stretch = 0; stretch < layout.num_stretches; ++stretch) {
    Cursor decoder;
    SPARSELOGITS_RETURN_IF_ERROR(StretchRange(layout, stretch, &decoder));
    Cursor skipper = decoder;
    const uint32_t first = stretch * kStretchPositions;
    for (uint32_t i = first; i < std::min(num_positions, first + kStretchPositions); ++i) {
      SPARSELOGITS_RETURN_IF_ERROR(DecodeRecord(layout, &decoder, &decoded));
      SPARSELOGITS_RETURN_IF_ERROR(SkipRecord(layout, &skipper, sections));
    }
    const uint64_t left = decoder.end - decoder.bit;
    if (left >= 8 || LowBits(PeekBits(decoder.base, decoder.bit), static_cast<int>(left)) != 0)
      return decoder.Corrupt("stretch_padding", "a stretch does not end with its last record");
    sections->stretch_padding += left;
  }
  if (decoded.token_ids.size() != num_entries)
    return Status::Corruption("the block holds " + std::to_string(decoded.token_ids.size()) +
                              " entries, its header says " + std::to_string(num_entries))
        .Field("num_entries")
        .At(0);
  if (format_.store_tokens) {
    std::vector<int32_t> tokens(num_positions);
    SPARSELOGITS_RETURN_IF_ERROR(
        DecodeTokens(content, num_positions, 0, num_positions, tokens.data()));
    const uint64_t used = uint64_t{num_positions} * static_cast<uint64_t>(token_bits_);
    const uint64_t left = layout.tokens.size() * 8 - used;
    if (left > 0 && (layout.tokens.back() >> (8 - left)) != 0)
      return Status::Corruption("padding bits after the tokens are not zero")
          .Field("tokens")
          .At(static_cast<int64_t>(layout.records_offset - 1));
  }
  sections->block_header += packed::kBlockHeaderLength * 8;
  sections->directory += layout.directory.size() * 8;
  sections->tokens += layout.tokens.size() * 8;
  return Status::Ok();
}

}  // namespace sparselogits
