#include "sparselogits/codec.h"

#include "sparselogits/packed_codec.h"

namespace sparselogits {

std::unique_ptr<BlockCodec> MakeCodec(CodecId id, const RecordFormat& format) {
  switch (id) {
    case CodecId::kPacked: return std::make_unique<PackedCodec>(format);
    case CodecId::kCompact: break;
  }
  return nullptr;
}

}  // namespace sparselogits
