#include "sparselogits/crc32c.h"

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace sparselogits {
namespace {

using Table = std::array<uint32_t, 256>;

// tables[k][b]: the effect of byte b followed by k zero bytes ("slicing by 8").
constexpr std::array<Table, 8> MakeTables() {
  std::array<Table, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t byte = 0; byte < 256; ++byte)
      tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xFF];
  return tables;
}

constexpr std::array<Table, 8> kTables = MakeTables();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t ExtendHardware(uint32_t crc, const uint8_t* data,
                                                          size_t size) {
  uint64_t state = ~crc;
  for (; size >= 8; data += 8, size -= 8) state = _mm_crc32_u64(state, Load64(data));
  uint32_t tail = static_cast<uint32_t>(state);
  for (; size > 0; ++data, --size) tail = _mm_crc32_u8(tail, *data);
  return ~tail;
}
const bool kHasHardware = __builtin_cpu_supports("sse4.2") != 0;
#elif defined(__ARM_FEATURE_CRC32)
uint32_t ExtendHardware(uint32_t crc, const uint8_t* data, size_t size) {
  crc = ~crc;
  for (; size >= 8; data += 8, size -= 8) crc = __crc32cd(crc, Load64(data));
  for (; size > 0; ++data, --size) crc = __crc32cb(crc, *data);
  return ~crc;
}
constexpr bool kHasHardware = true;
#else
uint32_t ExtendHardware(uint32_t crc, const uint8_t*, size_t) { return crc; }
constexpr bool kHasHardware = false;
#endif

}  // namespace

uint32_t ExtendCrc32cPortable(uint32_t crc, const uint8_t* data, size_t size) {
  crc = ~crc;
  for (; size >= 8; data += 8, size -= 8) {
    const uint64_t word = Load64(data) ^ crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
  }
  for (; size > 0; ++data, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *data) & 0xFF];
  return ~crc;
}

uint32_t ExtendCrc32c(uint32_t crc, const uint8_t* data, size_t size) {
  return kHasHardware ? ExtendHardware(crc, data, size) : ExtendCrc32cPortable(crc, data, size);
}

}  // namespace sparselogits
