// What the decoders of fixed layouts share.
#pragma once

#include <algorithm>
#include <string>

#include "sparselogits/status.h"

namespace sparselogits {

inline Status BadField(const char* field, int64_t offset, const std::string& what) {
  return Status::Corruption(what).Field(field).At(offset);
}

inline bool AllZero(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

}  // namespace sparselogits
