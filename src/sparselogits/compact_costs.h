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
  Place Find(uint32_t c, uint32_t id) const {
    const size_t row = row_of_[id];
    const uint16_t own = own_ranks_[row * stride_ + c];
    if (own != kNotListed) return zones_[2 * size_t{c}].Find(own);
    if (global_ranks_[row] != kNotGlobal) return zones_[2 * size_t{c} + 1].Find(global_ranks_[row]);
    return {raw_buckets_[c], id, id_bits_};
  }

 private:
  static constexpr uint16_t kNotListed = 0xFFFF;
  static constexpr uint32_t kNotGlobal = 0xFFFFFFFFu;

  // The buckets of a list.
  class Zone {
   public:
    Zone(const std::vector<uint8_t>& bits, uint32_t first_bucket, size_t num_ids);
    Place Find(uint32_t rank) const {
      uint32_t i = near_[rank / kStep];
      while (rank >= starts_[i + 1]) ++i;
      return {first_bucket_ + i, rank - starts_[i], bits_[i]};
    }

   private:
    static constexpr uint32_t kStep = 16;
    uint32_t first_bucket_;
    std::vector<uint32_t> starts_;  // the rank of each bucket's first entry, and the end
    std::vector<uint8_t> bits_;
    std::vector<uint8_t> near_;  // the bucket of every kStep-th rank
  };

  size_t stride_;
  int id_bits_;
  std::vector<uint32_t> row_of_;  // of each id of the vocabulary; 0 for those in no list
  std::vector<uint32_t> global_ranks_;  // of each row
  std::vector<uint16_t> own_ranks_;     // (rows, stride): the rank in the class's list
  std::vector<uint8_t> costs_;          // (rows, stride)
  std::vector<Zone> zones_;             // own and global of each class
  std::vector<uint32_t> raw_buckets_;   // of each class
};

}  // namespace sparselogits
