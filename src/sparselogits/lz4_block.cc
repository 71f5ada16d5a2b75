#include "sparselogits/lz4_block.h"

#ifdef SPARSELOGITS_HAVE_LZ4
#include <lz4.h>
#endif

namespace sparselogits {
namespace {

#ifdef SPARSELOGITS_HAVE_LZ4
bool Compress(ByteSpan in, Bytes* out) {
  const int size = static_cast<int>(in.size());  // frames are at most 2^30 bytes
  out->resize(static_cast<size_t>(LZ4_compressBound(size)));
  const int written = LZ4_compress_default(reinterpret_cast<const char*>(in.data()),
                                           reinterpret_cast<char*>(out->data()), size,
                                           static_cast<int>(out->size()));
  out->resize(static_cast<size_t>(written > 0 ? written : 0));
  return written > 0;
}

bool Decompress(ByteSpan in, uint8_t* out, size_t size) {
  return LZ4_decompress_safe(reinterpret_cast<const char*>(in.data()), reinterpret_cast<char*>(out),
                             static_cast<int>(in.size()),
                             static_cast<int>(size)) == static_cast<int>(size);
}

constexpr Lz4Functions kLinked = {Compress, Decompress};
const Lz4Functions* const kLinkedOrNull = &kLinked;
#else
const Lz4Functions* const kLinkedOrNull = nullptr;
#endif

const Lz4Functions* current = kLinkedOrNull;

}  // namespace

const Lz4Functions* CurrentLz4() { return current; }
void SetLz4(const Lz4Functions* functions) { current = functions; }
const Lz4Functions* LinkedLz4() { return kLinkedOrNull; }

}  // namespace sparselogits
