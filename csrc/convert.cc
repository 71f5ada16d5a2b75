#include "convert.h"

#include <random>

#include "errors.h"

namespace sparselogits::python {

std::string ToHex(const Uuid& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : uuid) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

Uuid UuidFromHex(const std::string& text) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  Uuid uuid{};
  bool valid = text.size() == 2 * uuid.size();
  for (size_t i = 0; valid && i < uuid.size(); ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    valid = high >= 0 && low >= 0;
    uuid[i] = static_cast<uint8_t>(valid ? high * 16 + low : 0);
  }
  if (!valid)
    ThrowIfError(Status::InvalidArgument("uuid: '" + text + "' is not 32 lower-case hex digits"));
  return uuid;
}

Uuid RandomUuid() {
  std::random_device device;
  Uuid uuid;
  for (uint8_t& byte : uuid) byte = static_cast<uint8_t>(device());
  return uuid;
}

Models ToModels(const std::vector<Model>& models) {
  Models out;
  for (const Model& model : models) out.push_back(model.get());
  return out;
}

}  // namespace sparselogits::python
