#include "sparselogits/compact_codec.h"

#include "sparselogits/compact_encoder.h"

namespace sparselogits {

CompactCodec::CompactCodec(const RecordFormat& format, ModelPtr model)
    : format_(format), model_(std::move(model)) {}

CompactCodec::~CompactCodec() = default;

bool CompactCodec::Encode(const BlockView& block, Bytes* out) const {
  if (encoder_ == nullptr) encoder_ = std::make_unique<CompactEncoder>(model_->content());
  return encoder_->Encode(block, format_.store_tokens, out);
}

}  // namespace sparselogits
