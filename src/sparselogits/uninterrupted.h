// System calls that a signal interrupted are made again, in every place in the same way.
#pragma once

#include <cerrno>

namespace sparselogits {

// The result of `call`, which returns a negative number and sets errno where it fails.
template <typename Call>
auto Uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

}  // namespace sparselogits
