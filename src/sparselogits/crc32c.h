// CRC-32C (Castagnoli): the checksum of every part of a shard.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sparselogits/bytes.h"

namespace sparselogits {

// The crc32c of a ‖ data, given crc = crc32c(a). Start with 0. Uses the processor's instruction
// where there is one.
uint32_t ExtendCrc32c(uint32_t crc, const uint8_t* data, size_t size);

inline uint32_t Crc32c(ByteSpan data) { return ExtendCrc32c(0, data.data(), data.size()); }

// The same by table, on any processor: the twin that tests compare with.
uint32_t ExtendCrc32cPortable(uint32_t crc, const uint8_t* data, size_t size);

}  // namespace sparselogits
