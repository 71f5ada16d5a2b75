// One record of a compact block while it is decoded. Private to the compact codec.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/rank_ascending.h"

namespace sparselogits::compact {

// The entries of a record in the order of their buckets.
class Record {
 public:
  // Takes memory when it is first called: not every record that is there is used.
  void Resize(uint32_t k) {
    size_ = k;
    if (k + kRankLanes <= ids_.size()) return;
    const size_t room = std::max(kLeastRoom, k + k / 2) + kRankLanes;
    for (auto* const column : {&ids_, &values_, &ranks_}) column->resize(room);
    buckets_.resize(room);
  }
  uint32_t size() const { return size_; }
  int32_t* ids() { return ids_.data(); }
  int32_t* values() { return values_.data(); }  // counts, or the bits of weights
  uint8_t* buckets() { return buckets_.data(); }
  // Sets ranks(): how many ids are smaller than each. False where two are equal.
  bool Rank() { return RankAscending(ids_.data(), size_, ranks_.data()); }
  const int32_t* ranks() const { return ranks_.data(); }

 private:
  static constexpr uint32_t kLeastRoom = 64;

  uint32_t size_ = 0;
  std::vector<int32_t> ids_, values_, ranks_;
  std::vector<uint8_t> buckets_;
};

}  // namespace sparselogits::compact
