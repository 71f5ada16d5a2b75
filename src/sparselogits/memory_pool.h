// Memory of batches that nobody uses any more, for the batches to come: what is used again is
// mapped already, where fresh memory costs a page fault every 4 KiB.
#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

#include "sparselogits/bytes.h"

namespace sparselogits {

// Safe to use from several threads at once, and in the child of a fork.
class MemoryPool {
 public:
  // Keeps up to max_blocks blocks, the largest ones.
  explicit MemoryPool(size_t max_blocks) : max_blocks_(max_blocks) {}
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // An empty buffer with room for at least `capacity` elements.
  template <typename T>
  Buffer<T> Take(size_t capacity) {
    const Block block = TakeBlock(capacity * sizeof(T));
    return Buffer<T>(static_cast<T*>(block.data), block.bytes / sizeof(T));
  }
  // The memory of a buffer, with which nobody may do anything any more.
  template <typename T>
  void Give(Buffer<T>* buffer) {
    const size_t bytes = buffer->capacity() * sizeof(T);
    Give(buffer->Release(), bytes);
  }
  void Give(void* data, size_t bytes);

 private:
  struct Block {
    void* data = nullptr;  // from malloc
    size_t bytes = 0;
  };
  Block TakeBlock(size_t bytes);

  const size_t max_blocks_;
  // Only ever tried, and malloc() and free() do the work where that fails: a child may be forked
  // while another thread of the parent holds it.
  std::mutex mutex_;
  std::vector<Block> blocks_;  // ascending in bytes
};

}  // namespace sparselogits
