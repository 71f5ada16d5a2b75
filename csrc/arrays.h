// NumPy arrays and bytes in and out: typed spans of what comes in, ownership of what goes out.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "sparselogits/bytes.h"

namespace sparselogits::python {

// Exactly this dtype, C-contiguous: the Python layer converts and says what is wrong.
template <typename T>
using InputArray = pybind11::array_t<T, pybind11::array::c_style>;

template <typename T>
std::span<const T> Span(const InputArray<T>& array) {
  return {array.data(), static_cast<size_t>(array.size())};
}

// Gives the buffer's memory to a new array.
template <typename T>
pybind11::array_t<T> GiveArray(Buffer<T>&& buffer) {
  const auto size = static_cast<pybind11::ssize_t>(buffer.size());
  T* const data = buffer.Release();
  if (data == nullptr) return pybind11::array_t<T>(0);
  const pybind11::capsule owner(data, [](void* memory) { std::free(memory); });
  return pybind11::array_t<T>(size, data, owner);
}

template <typename T>
pybind11::array_t<T> CopyArray(std::span<const T> values) {
  return pybind11::array_t<T>(static_cast<pybind11::ssize_t>(values.size()), values.data());
}

inline ByteSpan View(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

inline pybind11::bytes ToPython(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace sparselogits::python
