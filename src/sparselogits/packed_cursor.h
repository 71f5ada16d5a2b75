// Where the decoder of a packed block is: the sections of the block, and a place in a stretch.
// Private to the packed codec.
#pragma once

#include <algorithm>
#include <string>

#include "sparselogits/packed_codec.h"

namespace sparselogits {

struct PackedCodec::Layout {
  int low_bits;
  bool has_empty;
  int directory_width;  // bytes an entry
  uint32_t num_stretches;
  ByteSpan directory;
  ByteSpan tokens;
  ByteSpan records;
  size_t records_offset;  // of the records in the content, for messages
};

struct PackedCodec::Cursor {
  const uint8_t* base;  // of the records
  uint64_t bit;
  uint64_t end;  // bit after the stretch
  size_t records_offset;

  Status Corrupt(const char* field, std::string what) const {
    return Status::Corruption(std::move(what))
        .Field(field)
        .At(static_cast<int64_t>(records_offset + std::min(bit, end) / 8));
  }
};

}  // namespace sparselogits
