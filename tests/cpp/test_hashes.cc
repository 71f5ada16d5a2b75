// Checksums and fingerprints against published vectors and against their portable twins.
#include <string>

#include "check.h"
#include "sparselogits/crc32c.h"
#include "sparselogits/xxh64.h"

using sparselogits::Bytes;
using sparselogits::ByteSpan;

namespace {

Bytes FromText(const std::string& text) { return {text.begin(), text.end()}; }

Bytes Pattern(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 131 + (i >> 3));
  return bytes;
}

}  // namespace

TEST(crc32c_known_vectors) {
  CHECK_EQ(sparselogits::Crc32c(FromText("123456789")), 0xE3069283u);
  CHECK_EQ(sparselogits::Crc32c(Bytes(32, 0x00)), 0x8A9136AAu);  // RFC 3720, B.4
  CHECK_EQ(sparselogits::Crc32c(Bytes(32, 0xFF)), 0x62A8AB43u);
  CHECK_EQ(sparselogits::Crc32c({}), 0u);
}

TEST(crc32c_hardware_and_portable_agree) {
  const Bytes bytes = Pattern(300);
  for (size_t from = 0; from < 9; ++from)
    for (size_t size = 0; size + from <= bytes.size(); ++size)
      CHECK_EQ(sparselogits::ExtendCrc32c(7, bytes.data() + from, size),
               sparselogits::ExtendCrc32cPortable(7, bytes.data() + from, size));
}

TEST(crc32c_extends) {
  const Bytes bytes = Pattern(100);
  const uint32_t first = sparselogits::ExtendCrc32c(0, bytes.data(), 37);
  CHECK_EQ(sparselogits::ExtendCrc32c(first, bytes.data() + 37, 63), sparselogits::Crc32c(bytes));
}

TEST(xxh64_known_vectors) {
  CHECK_EQ(sparselogits::Xxh64({}), 0xEF46DB3751D8E999u);
  CHECK_EQ(sparselogits::Xxh64(FromText("a")), 0xD24EC4F1A98C6E5Bu);
  CHECK_EQ(sparselogits::Xxh64(FromText("abc")), 0x44BC2CF5AD770999u);
}

TEST(fingerprint_is_xxh64_of_little_endian_u32) {
  const uint32_t ids[] = {1, 0x01020304, 49151};
  const Bytes bytes = {1, 0, 0, 0, 4, 3, 2, 1, 0xFF, 0xBF, 0, 0};
  CHECK_EQ(sparselogits::FingerprintTokens(ids), sparselogits::Xxh64(bytes));
}

int main() { return sparselogits::testing::RunAll(); }
