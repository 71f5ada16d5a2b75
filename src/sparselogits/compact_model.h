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
    // Of each bucket - own, global, raw - what it takes of the mass from it on:
    // 2^(-hazard / 4).
    std::vector<uint8_t> hazards;

    uint32_t num_buckets() const {
      return static_cast<uint32_t>(own_bits.size() + global_bits.size() + 1);
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
  // The base of the bucket whose entries are ids themselves, not places of the lists.
  static constexpr uint32_t kRawBase = 1u << 31;
  // Stands for no id where a bucket is larger than what is left of its list.
  static constexpr uint32_t kNoId = 0xFFFFFFFFu;

  struct Bucket {
    uint32_t base = 0;     // of its first entry
    uint8_t bits = 0;      // 2^bits entries
    uint8_t step = 1;      // gaps count from behind it, or with 0 from it: it may hold another id
    uint16_t context = 0;  // of a gap that counts from there: see GapCode
  };

  // Refuses bytes that are not a model.
  static Status Parse(ByteSpan bytes, ModelPtr* out);

  const ModelContent& content() const { return content_; }
  const RecordFormat& format() const { return content_.format; }
  uint32_t num_classes() const { return content_.num_classes(); }
  const Bytes& bytes() const { return bytes_; }
  uint64_t digest() const { return digest_; }

  // For decoding, derived from the content.
  // The id that an entry of a bucket stands for; not below vocab_size where there is none.
  uint32_t IdOf(const Bucket& bucket, uint32_t entry) const {
    if (bucket.base == kRawBase) return entry;
    const uint32_t place = bucket.base + entry;
    return narrow_ids_.empty() ? ids_[place] : narrow_ids_[place];
  }
  const Bucket* buckets(uint32_t c) const { return &buckets_[size_t{c} * compact::kMaxBuckets]; }
  uint32_t num_buckets(uint32_t c) const { return num_buckets_[c]; }
  // The context of a record's first gap.
  uint16_t first_context(uint32_t c) const { return first_contexts_[c]; }
  const HuffmanTables& tables(compact::Family f) const { return tables_[static_cast<size_t>(f)]; }
  // The entries of the code for a context.
  const HuffmanTables::Entry* code(compact::Family f, uint32_t context) const {
    const HuffmanTables& tables = this->tables(f);
    return tables.data() + (size_t{content_.family(f).map[context]} << tables.width());
  }
  // Where in tables(kGap) the code for a gap is, by the sum of a bucket's `context` and the
  // QuarterLog2 of the number of entries left.
  const uint32_t* gap_codes() const { return gap_codes_; }
  // Likewise in tables(f), kCountPair or kCount, by the CountLevel of the entries left and the
  // excess, which counts no further than kMaxExcess.
  static constexpr uint32_t kMaxExcess = 128;
  const uint32_t* count_codes(compact::Family f, uint32_t level) const {
    return &count_codes_[f == compact::Family::kCountPair][level * (kMaxExcess + 1)];
  }

 private:
  // More than the sum of the largest hazard and the largest QuarterLog2.
  static constexpr uint32_t kGapContexts = 256;

  CompactModel() = default;
  void DeriveBuckets();
  void DeriveCodes();

  ModelContent content_;
  Bytes bytes_;
  uint64_t digest_ = 0;
  std::vector<uint32_t> ids_;
  std::vector<uint16_t> narrow_ids_;  // instead of ids_ where they fit: half the cache misses
  std::vector<Bucket> buckets_;
  std::vector<uint32_t> num_buckets_;
  std::vector<uint16_t> first_contexts_;
  std::vector<HuffmanTables> tables_;
  uint32_t gap_codes_[2 * kGapContexts] = {};
  std::vector<uint32_t> count_codes_[2];
};

// The name of a model's file in a cache's directory.
std::string ModelFileName(uint64_t digest);

// The first field in which records of `format` differ from those that the model was made for; null
// where it can code them. A model that codes tokens also codes records without.
const char* FieldThatModelLacks(const CompactModel& model, const RecordFormat& format);

}  // namespace sparselogits
