// LZ4 blocks without liblz4, so that every build of the tests reads every golden file.
#pragma once

#include <cstring>

#include "sparselogits/lz4_block.h"

namespace sparselogits::testing {

// One run of literals: valid, and never smaller.
inline bool CompressPlainly(ByteSpan in, Bytes* out) {
  out->clear();
  const size_t size = in.size();
  out->push_back(static_cast<uint8_t>(size < 15 ? size << 4 : 0xF0));
  if (size >= 15) {
    out->insert(out->end(), (size - 15) / 255, 0xFF);
    out->push_back(static_cast<uint8_t>((size - 15) % 255));
  }
  out->insert(out->end(), in.begin(), in.end());
  return true;
}

inline bool DecompressPlainly(ByteSpan in, uint8_t* out, size_t size) {
  size_t at = 0;
  size_t done = 0;
  // A length above 14 goes on in bytes up to one that is not 255.
  const auto length = [&](size_t start, size_t* value) {
    *value = start;
    if (start < 15) return true;
    for (uint8_t byte = 255; byte == 255; *value += byte) {
      if (at == in.size()) return false;
      byte = in[at++];
    }
    return true;
  };
  while (at < in.size()) {
    const uint8_t token = in[at++];
    size_t literals = 0;
    if (!length(token >> 4, &literals) || literals > in.size() - at || literals > size - done)
      return false;
    if (literals > 0) std::memcpy(out + done, in.data() + at, literals);
    at += literals;
    done += literals;
    if (at == in.size()) return (token & 15) == 0 && done == size;
    if (in.size() - at < 2) return false;
    const size_t distance = Load16(in.data() + at);
    at += 2;
    size_t match = 0;
    if (!length(token & 15, &match) || distance == 0 || distance > done) return false;
    match += 4;
    if (match > size - done) return false;
    for (; match > 0; --match, ++done) out[done] = out[done - distance];
  }
  return false;
}

inline constexpr Lz4Functions kPlainLz4 = {CompressPlainly, DecompressPlainly};

// Gives a build without liblz4 this one.
inline void UseAnyLz4() {
  if (CurrentLz4() == nullptr) SetLz4(&kPlainLz4);
}

}  // namespace sparselogits::testing
