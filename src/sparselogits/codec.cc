#include "sparselogits/codec.h"

#include "sparselogits/compact_codec.h"
#include "sparselogits/packed_codec.h"

namespace sparselogits {

CodecSet::CodecSet(const RecordFormat& format, ModelPtr model)
    : packed_(std::make_unique<PackedCodec>(format)) {
  if (model != nullptr) compact_ = std::make_unique<CompactCodec>(format, std::move(model));
}

Status BlockCodec::DecodeTokens(ByteSpan content, uint32_t num_positions, uint32_t first,
                                uint32_t last, int32_t* tokens) const {
  RecordBatch unused;
  return Decode(content, num_positions, first, last, &unused, tokens);
}

}  // namespace sparselogits
