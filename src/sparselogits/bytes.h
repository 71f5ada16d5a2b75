// Byte containers and a growing array without initialisation.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "sparselogits/endian.h"

namespace sparselogits {

using ByteSpan = std::span<const uint8_t>;
using Bytes = std::vector<uint8_t>;

// Decoders load whole words: this many bytes after a span that they read must be readable.
inline constexpr size_t kReadPadding = 8;

template <typename T>
inline void AppendLittle(Bytes* out, T value) {
  const size_t at = out->size();
  out->resize(at + sizeof(T));
  StoreLittle<T>(out->data() + at, value);
}

// A malloc-backed array of trivial elements: grows without initialising, and can be given away
// to an owner who calls free().
template <typename T>
class Buffer {
  static_assert(std::is_trivial_v<T>);

 public:
  Buffer() = default;
  // Takes over memory from malloc() that has room for `capacity` elements.
  Buffer(T* data, size_t capacity) : data_(data), capacity_(capacity) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T* end() { return data_ + size_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  std::span<const T> span() const { return {data_, size_}; }
  const T& operator[](size_t i) const { return data_[i]; }

  void Reserve(size_t capacity) {
    if (capacity > capacity_) Reallocate(capacity);
  }
  // Makes room for `count` more elements after end().
  void EnsureRoom(size_t count) {
    if (size_ + count > capacity_) Reallocate(size_ + count + capacity_ / 2);
  }
  // REQUIRES: EnsureRoom(count) was called and end() .. end() + count are written.
  void Advance(size_t count) { size_ += count; }
  void Append(T value) {
    EnsureRoom(1);
    data_[size_++] = value;
  }
  // REQUIRES: size <= size().
  void Truncate(size_t size) { size_ = size; }
  T* Release() {
    size_ = capacity_ = 0;
    return std::exchange(data_, nullptr);
  }

 private:
  void Reallocate(size_t capacity) {
    void* const grown = std::realloc(static_cast<void*>(data_), capacity * sizeof(T));
    if (grown == nullptr) throw std::bad_alloc();
    data_ = static_cast<T*>(grown);
    capacity_ = capacity;
  }

  T* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace sparselogits
