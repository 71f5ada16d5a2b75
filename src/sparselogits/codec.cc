#include "sparselogits/codec.h"

#include <cassert>

#include "sparselogits/packed_codec.h"

namespace sparselogits {

std::unique_ptr<BlockCodec> MakeCodec(CodecId id, const RecordFormat& format) {
  assert(IsKnownCodec(id));
  static_cast<void>(id);
  return std::make_unique<PackedCodec>(format);
}

}  // namespace sparselogits
