// Little-endian loads and stores at any address. The format never overlays structs on bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace sparselogits {

template <typename T>
inline T ByteSwapIfBigEndian(T value) {
  if constexpr (std::endian::native == std::endian::big) {
    if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(value));
    if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(value));
    if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(value));
  }
  return value;
}

template <typename T>
inline T LoadLittle(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return ByteSwapIfBigEndian(value);
}

template <typename T>
inline void StoreLittle(uint8_t* to, T value) {
  value = ByteSwapIfBigEndian(value);
  std::memcpy(to, &value, sizeof(T));
}

inline uint16_t Load16(const uint8_t* from) { return LoadLittle<uint16_t>(from); }
inline uint32_t Load32(const uint8_t* from) { return LoadLittle<uint32_t>(from); }
inline uint64_t Load64(const uint8_t* from) { return LoadLittle<uint64_t>(from); }
inline double LoadDouble(const uint8_t* from) { return std::bit_cast<double>(Load64(from)); }

inline void Store16(uint8_t* to, uint16_t value) { StoreLittle(to, value); }
inline void Store32(uint8_t* to, uint32_t value) { StoreLittle(to, value); }
inline void Store64(uint8_t* to, uint64_t value) { StoreLittle(to, value); }
inline void StoreDouble(uint8_t* to, double value) { Store64(to, std::bit_cast<uint64_t>(value)); }

}  // namespace sparselogits
