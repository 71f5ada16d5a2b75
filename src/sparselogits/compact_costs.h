// What an id costs in each class of a model, and where it stands there: what an encoder asks.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/compact_model.h"

namespace sparselogits {

class CompactCosts {
 public:
  // Costs are in units of 1 / kUnitsPerBit bits, and fit a byte.
  static constexpr int kUnitsPerBit = 8;

  // Of a model's content, whose codes need not be there yet.
  explicit CompactCosts(const ModelContent& content);

  // The costs of an id, one a class; stride() of them, of which the last ones may mean nothing.
  const uint8_t* of_id(uint32_t id) const { return &costs_[size_t{row_of_[id]} * stride_]; }
  size_t stride() const { return stride_; }

  // A place in a class: a bucket and an entry of it.
  struct Place {
    uint32_t bucket;
    uint32_t entry;
    int bits;  // of the entry
  };
  Place Find(uint32_t c, uint32_t id) const { return Find(c, id, RankOf(c, id)); }
  // In two steps, the first of which misses caches: best made for many ids before the second.
  uint32_t RankOf(uint32_t c, uint32_t id) const {
    const size_t row = row_of_[id];
    const uint32_t own = own_ranks_[row * stride_ + c];
    return own != kNotListed ? own : kBehindOwn + global_ranks_[row];
  }
  Place Find(uint32_t c, uint32_t id, uint32_t rank) const {
    if (rank < kBehindOwn) return zones_[2 * size_t{c}].Find(rank);
    if (rank < kBehindOwn + kNotGlobal) return zones_[2 * size_t{c} + 1].Find(rank - kBehindOwn);
    return {raw_buckets_[c], id, id_bits_};
  }

 private:
  static constexpr uint16_t kNotListed = 0xFFFF;
  static constexpr uint32_t kBehindOwn = 0x10000;  // what global ranks are raised by
  static constexpr uint32_t kNotGlobal = 0x40000000;

  // The buckets of a list.
  class Zone {
   public:
    // Looks ranks up in steps of 2^step_bits: the smaller, the fewer buckets are tried for one.
    Zone(const std::vector<uint8_t>& bits, uint32_t first_bucket, size_t num_ids, int step_bits);
    Place Find(uint32_t rank) const {
      uint32_t i = near_[rank >> step_bits_];
      while (rank >= starts_[i + 1]) ++i;
      return {first_bucket_ + i, rank - starts_[i], bits_[i]};
    }

   private:
    uint32_t first_bucket_;
    int step_bits_;
    std::vector<uint32_t> starts_;  // the rank of each bucket's first entry, and the end
    std::vector<uint8_t> bits_;
    std::vector<uint8_t> near_;  // the bucket in which each step starts
  };

  size_t stride_;
  int id_bits_;
  std::vector<uint32_t> row_of_;        // of each id of the vocabulary; 0 for those in no list
  std::vector<uint32_t> global_ranks_;  // of each row
  std::vector<uint16_t> own_ranks_;     // (rows, stride): the rank in the class's list
  std::vector<uint8_t> costs_;          // (rows, stride)
  std::vector<Zone> zones_;             // own and global of each class
  std::vector<uint32_t> raw_buckets_;   // of each class
};

}  // namespace sparselogits
