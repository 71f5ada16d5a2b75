// Where each of a few numbers stands in ascending order, without a branch that depends on them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sparselogits {

// Numbers are looked at in groups of this size: arrays of them need room for as many more.
inline constexpr uint32_t kRankLanes = 8;

// Sets ranks[i] to how many keys are smaller than keys[i]. False where two are equal; the ranks
// then mean nothing. What is behind the keys is overwritten. Counting takes size^2 steps,
// kRankLanes of them at a time, and is left to a sort where that is too many.
inline bool RankAscending(int32_t* keys, uint32_t size, int32_t* ranks) {
  constexpr uint32_t kMaxCounted = 64;
  typedef int32_t Lanes __attribute__((vector_size(kRankLanes * sizeof(int32_t)), aligned(4)));
  if (size > kMaxCounted) [[unlikely]] {
    std::vector<uint32_t> order(size);
    for (uint32_t i = 0; i < size; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [keys](uint32_t a, uint32_t b) { return keys[a] < keys[b]; });
    bool differ = true;
    for (uint32_t i = 0; i < size; ++i) {
      differ &= i == 0 || keys[order[i]] != keys[order[i - 1]];
      ranks[order[i]] = static_cast<int32_t>(i);
    }
    return differ;
  }
  std::fill_n(keys + size, kRankLanes, INT32_MAX);
  for (uint32_t at = 0; at < size; at += kRankLanes) {
    const Lanes mine = *reinterpret_cast<const Lanes*>(keys + at);
    Lanes rank = {};
    for (uint32_t j = 0; j < size; ++j) rank -= keys[j] < mine;
    *reinterpret_cast<Lanes*>(ranks + at) = rank;
  }
  int32_t sum = 0;  // less than that of 0 ... size - 1 where keys share a rank
  for (uint32_t i = 0; i < size; ++i) sum += ranks[i];
  return sum == static_cast<int32_t>(size * (size - 1) / 2);
}

}  // namespace sparselogits
