// What the compact codec has learnt: classes of positions, the order of ids in each, and the codes.
// A model belongs to a cache, is named by its digest, and never changes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "sparselogits/codec.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/huffman.h"

namespace sparselogits {

inline constexpr size_t kModelHeaderLength = 32;
inline constexpr size_t kMaxModelLength = size_t{1} << 26;

// A family of codes: its contexts choose among codes by a map.
struct CodeFamily {
  std::vector<uint8_t> map;                   // context -> code
  std::vector<std::vector<uint8_t>> lengths;  // of each code, one a symbol
};

// What a model file says, before anything is derived from it.
struct ModelContent {
  RecordFormat format;
  std::vector<uint32_t> global_ids;  // from the most to the least frequent
  struct Class {
    std::vector<uint32_t> ids;         // its own order of the ids that it favours
    std::vector<uint8_t> own_bits;     // log2 of the ids in each bucket of the above
    std::vector<uint8_t> global_bits;  // likewise of the global ids
    // Of each bucket - own, local, global, raw - what it takes of the mass from it on:
    // 2^(-hazard / 4).
    std::vector<uint8_t> hazards;

    uint32_t num_buckets() const {
      return static_cast<uint32_t>(own_bits.size() + compact::kLocalBuckets + global_bits.size() +
                                   1);
    }
  };
  std::vector<Class> classes;
  CodeFamily families[compact::kNumFamilies];

  const CodeFamily& family(compact::Family f) const { return families[static_cast<size_t>(f)]; }
  uint32_t num_classes() const { return static_cast<uint32_t>(classes.size()); }
};

// REQUIRES: ParseModel would take the result.
Bytes EncodeModel(const ModelContent& content);
// Checks everything: the bytes may be anything.
Status ParseModel(ByteSpan bytes, ModelContent* content);

class CompactModel {
 public:
  // Where an entry of a bucket is found: its index in ids(), or beyond it in the block's own list,
  // or the id itself.
  static constexpr uint32_t kLocalBase = 1u << 30;
  static constexpr uint32_t kRawBase = 1u << 31;
  // Stands for no id where a bucket is larger than what is left of its list.
  static constexpr uint32_t kNoId = 0xFFFFFFFFu;

  struct Bucket {
    uint32_t base = 0;     // of its first entry
    uint8_t bits = 0;      // 2^bits entries; those of local buckets are the block's matter
    bool is_wide = false;  // may hold another id of the same record: gaps count from it, not behind
    bool is_local = false;
    uint8_t hazard = 0;  // of the bucket from which gaps count
  };

  // Refuses bytes that are not a model.
  static Status Parse(ByteSpan bytes, ModelPtr* out);

  const ModelContent& content() const { return content_; }
  const RecordFormat& format() const { return content_.format; }
  uint32_t num_classes() const { return content_.num_classes(); }
  const Bytes& bytes() const { return bytes_; }
  uint64_t digest() const { return digest_; }

  // For decoding, derived from the content.
  const std::vector<uint32_t>& ids() const { return ids_; }
  const Bucket* buckets(uint32_t c) const { return &buckets_[size_t{c} * compact::kMaxBuckets]; }
  uint32_t num_buckets(uint32_t c) const { return num_buckets_[c]; }
  uint8_t first_hazard(uint32_t c) const { return content_.classes[c].hazards[0]; }
  const HuffmanTables& tables(compact::Family f) const { return tables_[static_cast<size_t>(f)]; }
  uint8_t code_of(compact::Family f, uint32_t context) const {
    return content_.family(f).map[context];
  }

 private:
  CompactModel() = default;
  void Derive();

  ModelContent content_;
  Bytes bytes_;
  uint64_t digest_ = 0;
  std::vector<uint32_t> ids_;
  std::vector<Bucket> buckets_;
  std::vector<uint32_t> num_buckets_;
  std::vector<HuffmanTables> tables_;
};

// The name of a model's file in a cache's directory.
std::string ModelFileName(uint64_t digest);

// The first field in which records of `format` differ from those that the model was made for; null
// where it can code them. A model that codes tokens also codes records without.
const char* FieldThatModelLacks(const CompactModel& model, const RecordFormat& format);

}  // namespace sparselogits
