// Takes the records of a compact block one after the other (formats/v1.md section 12.2). All of it
// is inline, so that it is compiled for the instruction sets of whoever uses it. Private to the
// codec.
#pragma once

#include <cmath>

#include "sparselogits/codec.h"
#include "sparselogits/compact_cursors.h"
#include "sparselogits/half.h"

namespace sparselogits::compact {

// Field and message of a fault.
struct FaultText {
  const char* field;
  const char* what;
};
FaultText TextOf(Fault fault);

class RecordDecoder {
 public:
  // REQUIRES: both outlive it.
  RecordDecoder(const RecordFormat& format, const CompactModel& model)
      : format_(format),
        model_(model),
        has_counts_(format.value_kind == ValueKind::kCounts),
        max_entries_(MostEntries(format)) {}

  // The class to give to Take at the start of a stretch.
  uint32_t no_class() const { return model_.num_classes(); }

  // Takes the record at the window; *c is the class of the one before it and becomes its own.
  // Without kIds its ids are passed over. Where `sections` is not null, its bits are added there.
  template <bool kIds>
  Fault Take(BitWindow* window, uint32_t* c, BlockSections* sections = nullptr);

  // Takes the records at two windows, which do not wait for each other: what one decoder looks up,
  // the other one need not stand still for. False where one of them has a fault, no matter which;
  // the windows then mean nothing.
  static bool TakeTwo(RecordDecoder* first, BitWindow* first_window, uint32_t* first_c,
                      RecordDecoder* second, BitWindow* second_window, uint32_t* second_c);

  // Takes the input token of the position after that record, whose class is c. Without kIds it must
  // not be asked for.
  template <bool kIds>
  Fault TakeToken(BitWindow* window, uint32_t c, uint32_t* token);

  // Appends the record to `out`, its ids ascending.
  Fault Store(RecordBatch* out);

 private:
  const HuffmanTables::Entry* code(Family f, uint32_t context) const {
    return model_.code(f, context);
  }
  uint64_t mask(Family f) const { return model_.tables(f).mask(); }
  Fault TakeHead(BitWindow* window, uint32_t* c, BlockSections* sections);
  void TakeWeights(BitWindow* window, uint32_t k);
  uint32_t EntryOfRank(uint32_t rank);

  const RecordFormat& format_;
  const CompactModel& model_;
  const bool has_counts_;
  const uint32_t max_entries_;
  Record record_;
};

// Class and number of entries.
inline Fault RecordDecoder::TakeHead(BitWindow* window, uint32_t* c, BlockSections* sections) {
  const uint64_t before = window->position();
  window->Refill();
  *c = model_.num_classes() > 1 ? window->TakeSymbol(code(Family::kClass, *c), mask(Family::kClass))
                                : 0;
  const uint64_t between = window->position();
  const uint32_t k = window->TakeValue(code(Family::kEntryNumber, *c), mask(Family::kEntryNumber));
  if (sections != nullptr) {
    sections->classes += between - before;
    sections->entry_numbers += window->position() - between;
  }
  if (k > max_entries_) [[unlikely]]
    return Fault::kEntryNumber;
  record_.Resize(k);
  return Fault::kNone;
}

template <bool kIds>
inline Fault RecordDecoder::Take(BitWindow* window, uint32_t* c, BlockSections* sections) {
  Fault fault = TakeHead(window, c, sections);
  if (fault != Fault::kNone) [[unlikely]]
    return fault;
  uint64_t at = window->position();
  const auto account = [&](uint64_t BlockSections::* section) {
    if (sections == nullptr) return;
    sections->*section += window->position() - at;
    at = window->position();
  };
  if (has_counts_) {
    CountCursor counts(model_, *window, &record_);
    while (counts.has_pair()) counts.TakePair();
    fault = counts.Finish(window);
    if (fault != Fault::kNone) [[unlikely]]
      return fault;
  }
  account(&BlockSections::counts);
  IdCursor<kIds> ids(model_, *window, *c, &record_);
  while (ids.has_id()) ids.TakeId();
  fault = ids.Finish(window);
  if (fault != Fault::kNone) [[unlikely]]
    return fault;
  account(&BlockSections::ids);
  if (!has_counts_) TakeWeights(window, record_.size());
  account(&BlockSections::weights);
  return window->is_overrun() ? Fault::kOverrun : Fault::kNone;
}

inline bool RecordDecoder::TakeTwo(RecordDecoder* first, BitWindow* first_window, uint32_t* first_c,
                                   RecordDecoder* second, BitWindow* second_window,
                                   uint32_t* second_c) {
  const Fault heads[] = {first->TakeHead(first_window, first_c, nullptr),
                         second->TakeHead(second_window, second_c, nullptr)};
  if (heads[0] != Fault::kNone || heads[1] != Fault::kNone) return false;
  bool is_good = true;
  if (first->has_counts_) {
    CountCursor a(first->model_, *first_window, &first->record_);
    CountCursor b(second->model_, *second_window, &second->record_);
    while (a.has_pair() && b.has_pair()) {
      a.TakePair();
      b.TakePair();
    }
    while (a.has_pair()) a.TakePair();
    while (b.has_pair()) b.TakePair();
    is_good &= a.Finish(first_window) == Fault::kNone && b.Finish(second_window) == Fault::kNone;
  }
  IdCursor<true> a(first->model_, *first_window, *first_c, &first->record_);
  IdCursor<true> b(second->model_, *second_window, *second_c, &second->record_);
  while (a.has_id() && b.has_id()) {
    a.TakeId();
    b.TakeId();
  }
  while (a.has_id()) a.TakeId();
  while (b.has_id()) b.TakeId();
  is_good &= a.Finish(first_window) == Fault::kNone && b.Finish(second_window) == Fault::kNone;
  if (!first->has_counts_) {
    first->TakeWeights(first_window, first->record_.size());
    second->TakeWeights(second_window, second->record_.size());
  }
  return is_good && !first_window->is_overrun() && !second_window->is_overrun();
}

inline void RecordDecoder::TakeWeights(BitWindow* window, uint32_t k) {
  const auto raw_bits = static_cast<uint32_t>(RawWeightBits(format_.weight_dtype));
  for (uint32_t i = 0; i < k; ++i) {
    window->Refill();
    const uint32_t high = window->TakeSymbol(
        code(Family::kWeight, WeightContext(record_.buckets()[i])), mask(Family::kWeight));
    record_.values()[i] = static_cast<int32_t>(high << raw_bits | window->Take(raw_bits));
  }
}

// The entry with `rank - 1` before it: those of larger values, and of equal ones further in front.
inline uint32_t RecordDecoder::EntryOfRank(uint32_t rank) {
  const int32_t* const values = record_.values();
  const uint32_t k = record_.size();
  const auto key = [values](uint32_t i) {
    return static_cast<int64_t>(values[i]) << 32 | (0xFFFFFFFFu - i);
  };
  int64_t bound = INT64_MAX;
  if (rank > 16) {  // seldom, and not in the time of rank times k
    std::vector<int64_t> keys(k);
    for (uint32_t i = 0; i < k; ++i) keys[i] = key(i);
    std::nth_element(keys.begin(), keys.begin() + (rank - 1), keys.end(), std::greater<>());
    bound = keys[rank - 1];
  } else {
    for (uint32_t r = 0; r < rank; ++r) {
      int64_t best = 0;
      for (uint32_t i = 0; i < k; ++i) best = key(i) < bound ? std::max(best, key(i)) : best;
      bound = best;
    }
  }
  return 0xFFFFFFFFu - static_cast<uint32_t>(bound);
}

template <bool kIds>
inline Fault RecordDecoder::TakeToken(BitWindow* window, uint32_t c, uint32_t* token) {
  window->Refill();
  const uint32_t k = record_.size();
  if (k > 0) {
    uint32_t context = 0;
    if (has_counts_)
      context = TokenRankContext(
          static_cast<uint32_t>(*std::max_element(record_.values(), record_.values() + k)),
          format_.rounds);
    const uint32_t rank =
        window->TakeValue(code(Family::kTokenRank, context), mask(Family::kTokenRank));
    if (rank > k) [[unlikely]]
      return Fault::kTokenRank;
    if (rank > 0) {
      if constexpr (kIds) *token = static_cast<uint32_t>(record_.ids()[EntryOfRank(rank)]);
      return window->is_overrun() ? Fault::kOverrun : Fault::kNone;
    }
    window->Refill();
  }
  const uint32_t b = window->TakeSymbol(code(Family::kTokenBucket, c), mask(Family::kTokenBucket));
  if (b >= model_.num_buckets(c)) [[unlikely]]
    return Fault::kTokenBucket;
  const CompactModel::Bucket& bucket = model_.buckets(c)[b];
  *token = model_.IdOf(bucket, window->Take(bucket.bits));
  if (*token >= format_.vocab_size) [[unlikely]]
    return Fault::kToken;
  return window->is_overrun() ? Fault::kOverrun : Fault::kNone;
}

inline Fault RecordDecoder::Store(RecordBatch* out) {
  const uint32_t k = record_.size();
  if (!record_.Rank()) [[unlikely]]
    return Fault::kIdTwice;
  const int32_t* const ranks = record_.ranks();
  const int32_t* const from_ids = record_.ids();
  const int32_t* const from_values = record_.values();
  out->token_ids.EnsureRoom(k);
  int32_t* const ids = out->token_ids.end();
  if (has_counts_) {
    out->counts.EnsureRoom(k);
    uint16_t* const counts = out->counts.end();
    for (uint32_t i = 0; i < k; ++i) {
      ids[ranks[i]] = from_ids[i];
      counts[ranks[i]] = static_cast<uint16_t>(from_values[i]);
    }
    out->counts.Advance(k);
  } else {
    out->weights.EnsureRoom(k);
    float* const weights = out->weights.end();
    bool valid = true;
    for (uint32_t i = 0; i < k; ++i) {
      const float weight =
          WeightFromBits(static_cast<uint32_t>(from_values[i]), format_.weight_dtype);
      valid &= std::isfinite(weight);
      ids[ranks[i]] = from_ids[i];
      weights[ranks[i]] = weight;
    }
    if (!valid) return Fault::kWeight;
    out->weights.Advance(k);
  }
  out->token_ids.Advance(k);
  out->offsets.Append(static_cast<int64_t>(out->token_ids.size()));
  return Fault::kNone;
}

}  // namespace sparselogits::compact
