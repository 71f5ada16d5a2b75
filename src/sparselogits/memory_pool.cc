#include "sparselogits/memory_pool.h"

#include <algorithm>

namespace sparselogits {

MemoryPool::~MemoryPool() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;  // forked while it was changed: nobody can tell what is in it
  for (const Block& block : blocks_) std::free(block.data);
}

MemoryPool::Block MemoryPool::TakeBlock(size_t bytes) {
  if (bytes == 0) return {};
  if (const std::unique_lock lock(mutex_, std::try_to_lock); lock.owns_lock()) {
    const auto fit = std::ranges::lower_bound(blocks_, bytes, {}, &Block::bytes);
    if (fit != blocks_.end()) {
      const Block block = *fit;
      blocks_.erase(fit);
      return block;
    }
  }
  void* const data = std::malloc(bytes);
  if (data == nullptr) throw std::bad_alloc();
  return {data, bytes};
}

void MemoryPool::Give(void* data, size_t bytes) {
  if (data == nullptr) return;
  void* dropped = data;  // freed after the mutex is free again
  if (const std::unique_lock lock(mutex_, std::try_to_lock); lock.owns_lock()) {
    blocks_.insert(std::ranges::lower_bound(blocks_, bytes, {}, &Block::bytes), {data, bytes});
    dropped = nullptr;
    if (blocks_.size() > max_blocks_) {
      dropped = blocks_.front().data;
      blocks_.erase(blocks_.begin());
    }
  }
  std::free(dropped);
}

}  // namespace sparselogits
