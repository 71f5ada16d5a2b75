// One record of a compact block while it is decoded, and its way into ascending ids. Private to the
// compact codec.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sparselogits::compact {

// The entries of a record in the order of their buckets, with room for kLanes more.
class Record {
 public:
  // Ids are sorted in groups of this size.
  static constexpr uint32_t kLanes = 8;

  Record() { Resize(64), Resize(0); }

  void Resize(uint32_t k) {
    size_ = k;
    if (k + kLanes <= ids_.size()) return;
    for (auto* const column : {&ids_, &values_, &ranks_}) column->resize(k + k / 2 + kLanes);
    buckets_.resize(k + k / 2 + kLanes);
  }
  uint32_t size() const { return size_; }
  int32_t* ids() { return ids_.data(); }
  int32_t* values() { return values_.data(); }  // counts, or the bits of weights
  uint8_t* buckets() { return buckets_.data(); }
  const int32_t* ranks() const { return ranks_.data(); }

  // Sets ranks(): how many ids are smaller than each. False where two are equal.
  bool Rank() { return size_ <= kMaxCounted ? RankByCounting() : RankBySorting(); }

 private:
  // Counting takes k^2 steps, kLanes at a time.
  static constexpr uint32_t kMaxCounted = 64;
  typedef int32_t Lanes __attribute__((vector_size(kLanes * sizeof(int32_t)), aligned(4)));

  bool RankByCounting() {
    const auto k = static_cast<int32_t>(size_);
    int32_t* const ids = ids_.data();
    std::fill_n(ids + k, kLanes, INT32_MAX);
    int32_t sum = 0;
    for (int32_t at = 0; at < k; at += static_cast<int32_t>(kLanes)) {
      const Lanes mine = *reinterpret_cast<const Lanes*>(ids + at);
      Lanes rank = {};
      for (int32_t j = 0; j < k; ++j) rank -= ids[j] < mine;
      *reinterpret_cast<Lanes*>(ranks_.data() + at) = rank;
    }
    for (int32_t i = 0; i < k; ++i) sum += ranks_[static_cast<size_t>(i)];
    return sum == k * (k - 1) / 2;  // less where ids share a rank
  }

  bool RankBySorting() {
    std::vector<uint32_t> order(size_);
    for (uint32_t i = 0; i < size_; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [this](uint32_t a, uint32_t b) { return ids_[a] < ids_[b]; });
    for (uint32_t i = 0; i < size_; ++i) {
      if (i > 0 && ids_[order[i]] == ids_[order[i - 1]]) return false;
      ranks_[order[i]] = static_cast<int32_t>(i);
    }
    return true;
  }

  uint32_t size_ = 0;
  std::vector<int32_t> ids_, values_, ranks_;
  std::vector<uint8_t> buckets_;
};

}  // namespace sparselogits::compact
