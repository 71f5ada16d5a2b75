// Raw LZ4 blocks, the wrapping of frames: liblz4 where the build found it, else whatever the host
// program offers (the Python package hands in its lz4 module).
#pragma once

#include "sparselogits/bytes.h"
#include "sparselogits/status.h"

namespace sparselogits {

struct Lz4Functions {
  // Both return false on failure. Compress fills *out; Decompress must fill out entirely.
  bool (*compress)(ByteSpan in, Bytes* out);
  bool (*decompress)(ByteSpan in, uint8_t* out, size_t size);
};

// What is in use; null where this program has no LZ4.
const Lz4Functions* CurrentLz4();
// Replaces it. REQUIRES: no frame is read or written meanwhile.
void SetLz4(const Lz4Functions* functions);
// liblz4's, or null where the build did not find the library.
const Lz4Functions* LinkedLz4();

}  // namespace sparselogits
