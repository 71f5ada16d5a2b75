// The code that has SIMD paths behind plain C, so that several builds of it fit into one program.
#pragma once

#include <cstddef>
#include <cstdint>

namespace simd_adapter {

struct Slice {
  const uint8_t* data;
  size_t size;
};

// What a call gives, as bytes that can be compared whatever they mean: valid until the next call.
struct Variant {
  const char* name;
  // Decodes a range of positions and checks the block. `block` is the input of block_input.h.
  Slice (*decode)(const uint8_t* block, size_t size);
  // The same of a compact block, whose model, encoding and decoding are all of this build. `input`
  // is that of fuzz_compact.
  Slice (*decode_compact)(const uint8_t* input, size_t size);
  // crc32c in the hardware and by table, and xxh64.
  Slice (*hash)(const uint8_t* data, size_t size);
  // Draws from rows of logits, and what each kernel that this processor has gives for them.
  Slice (*sample)(const uint8_t* input, size_t size);
};

}  // namespace simd_adapter

extern "C" {
__attribute__((visibility("default"))) const simd_adapter::Variant* SparselogitsSimd_baseline();
__attribute__((visibility("default"))) const simd_adapter::Variant* SparselogitsSimd_v3();
__attribute__((visibility("default"))) const simd_adapter::Variant* SparselogitsSimd_core();
}
