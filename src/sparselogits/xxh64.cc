#include "sparselogits/xxh64.h"

#include <bit>

namespace sparselogits {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

constexpr uint64_t Round(uint64_t lane, uint64_t input) {
  return std::rotl(lane + input * kPrime2, 31) * kPrime1;
}

constexpr uint64_t MergeLane(uint64_t hash, uint64_t lane) {
  return (hash ^ Round(0, lane)) * kPrime1 + kPrime4;
}

}  // namespace

uint64_t Xxh64(ByteSpan data) {
  const uint8_t* at = data.data();
  size_t left = data.size();
  uint64_t hash = kPrime5;
  if (left >= 32) {
    uint64_t lanes[4] = {kPrime1 + kPrime2, kPrime2, 0, uint64_t{0} - kPrime1};
    for (; left >= 32; at += 32, left -= 32)
      for (int i = 0; i < 4; ++i) lanes[i] = Round(lanes[i], Load64(at + 8 * i));
    hash = std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) +
           std::rotl(lanes[3], 18);
    for (const uint64_t lane : lanes) hash = MergeLane(hash, lane);
  }
  hash += data.size();
  for (; left >= 8; at += 8, left -= 8)
    hash = std::rotl(hash ^ Round(0, Load64(at)), 27) * kPrime1 + kPrime4;
  if (left >= 4) {
    hash = std::rotl(hash ^ (Load32(at) * kPrime1), 23) * kPrime2 + kPrime3;
    at += 4;
    left -= 4;
  }
  for (; left > 0; ++at, --left) hash = std::rotl(hash ^ (*at * kPrime5), 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

uint64_t FingerprintTokens(std::span<const uint32_t> ids) {
  if constexpr (std::endian::native == std::endian::little)
    return Xxh64({reinterpret_cast<const uint8_t*>(ids.data()), ids.size_bytes()});
  Bytes bytes;
  bytes.reserve(ids.size_bytes());
  for (const uint32_t id : ids) AppendLittle<uint32_t>(&bytes, id);
  return Xxh64(bytes);
}

}  // namespace sparselogits
