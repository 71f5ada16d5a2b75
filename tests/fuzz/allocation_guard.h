// Finds the largest allocation since the guard was made; in builds with a sanitizer only, which
// offer the hook.
#pragma once

#include <cstddef>

namespace sparselogits::fuzz {

class AllocationGuard {
 public:
  AllocationGuard();
  // 0 where this build cannot tell.
  size_t largest() const;
};

}  // namespace sparselogits::fuzz
