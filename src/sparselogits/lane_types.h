// Vectors of kLanes numbers (extensions of GCC and Clang).
#pragma once

#if defined(__GNUC__)

#include <cstdint>

namespace sparselogits {

// Not members of the templates that use them: GCC takes a dependent vector size of the class itself
// for a scalar.
template <int kLanes>
struct LaneTypes {
  typedef float Floats __attribute__((vector_size(kLanes * 4)));
  typedef int32_t Integers __attribute__((vector_size(kLanes * 4)));
  typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
  typedef uint64_t Wide __attribute__((vector_size(kLanes * 4)));
  typedef uint16_t Halves __attribute__((vector_size(kLanes * 2)));
};

}  // namespace sparselogits

#endif
