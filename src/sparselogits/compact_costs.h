// What an id costs in each class of a model, and where it stands there: what an encoder asks.
#pragma once

#include <cstdint>
#include <vector>

#include "sparselogits/compact_model.h"

namespace sparselogits {

class CompactCosts {
 public:
  // Costs are in units of 1 / kUnitsPerBit bits.
  static constexpr int kUnitsPerBit = 8;

  // Of a model's content, whose codes need not be there yet.
  explicit CompactCosts(const ModelContent& content);

  uint32_t num_classes() const { return num_classes_; }
  // One an id and class, the classes of an id side by side (kStride bytes apart for each id).
  const uint8_t* of_id(uint32_t id) const { return &costs_[size_t{row_of_[id]} * stride_]; }
  size_t stride() const { return stride_; }

  // A place in a class: which bucket, and which entry of it.
  struct Place {
    uint32_t bucket;
    uint32_t offset;
    int bits;       // of the offset
    uint32_t cost;  // of bucket and offset
  };
  Place Find(uint32_t c, uint32_t id) const;

 private:
  struct Zone {
    std::vector<uint32_t> starts;  // of each bucket in the list, and the end
    std::vector<uint8_t> bits;
    uint32_t first_bucket = 0;
  };
  Place PlaceIn(const Zone& zone, uint32_t c, uint32_t rank) const;

  uint32_t num_classes_;
  size_t stride_;
  int id_bits_;
  std::vector<uint32_t> row_of_;  // of each id of the vocabulary; 0 for those in no list
  std::vector<uint32_t> global_rank_of_row_;
  std::vector<uint16_t> own_ranks_;  // (rows, stride): the rank in the class's list, or kNotListed
  std::vector<uint8_t> costs_;       // (rows, stride)
  std::vector<Zone> own_, global_;
  std::vector<std::vector<uint32_t>> bucket_costs_;
};

}  // namespace sparselogits
