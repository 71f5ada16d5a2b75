// XXH64 with seed 0 (Collet, the xxHash specification): the fingerprint of token ids.
#pragma once

#include <cstdint>
#include <span>

#include "sparselogits/bytes.h"

namespace sparselogits {

uint64_t Xxh64(ByteSpan data);

// formats/v1.md section 6: xxh64 of the ids as u32, little-endian.
uint64_t FingerprintTokens(std::span<const uint32_t> ids);

}  // namespace sparselogits
