#include "allocation_guard.h"

#include <algorithm>

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*,
                                                                           size_t),
                                                         void (*on_free)(const volatile void*))
    __attribute__((weak));

namespace sparselogits::fuzz {
namespace {

size_t largest_allocation = 0;

void OnMalloc(const volatile void*, size_t size) {
  largest_allocation = std::max(largest_allocation, size);
}
void OnFree(const volatile void*) {}

}  // namespace

AllocationGuard::AllocationGuard() {
  static const bool installed = __sanitizer_install_malloc_and_free_hooks != nullptr &&
                                __sanitizer_install_malloc_and_free_hooks(OnMalloc, OnFree) != 0;
  static_cast<void>(installed);
  largest_allocation = 0;
}

size_t AllocationGuard::largest() const { return largest_allocation; }

}  // namespace sparselogits::fuzz
