// Takes the records of a compact block one after the other (formats/v1.md section 12.2). All of it
// is inline, so that it is compiled for the instruction sets of whoever uses it. Private to the
// codec.
#pragma once

#include <cmath>

#include "sparselogits/codec.h"
#include "sparselogits/compact_model.h"
#include "sparselogits/compact_record.h"
#include "sparselogits/compact_stretch.h"
#include "sparselogits/half.h"

namespace sparselogits::compact {

// What a record can be refused for.
enum class Fault : uint8_t {
  kNone,
  kOverrun,
  kEntryNumber,
  kCountSum,
  kBucket,
  kId,
  kIdTwice,
  kWeight,
  kTokenRank,
  kTokenBucket,
  kToken
};

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
        max_entries_(std::min(format.vocab_size, has_counts_ ? format.rounds : 65535u)) {
    for (size_t f = 0; f < kNumFamilies; ++f)
      masks_[f] = (uint64_t{1} << model.tables(static_cast<Family>(f)).width()) - 1;
  }

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
  uint64_t mask(Family f) const { return masks_[static_cast<size_t>(f)]; }
  uint32_t TakeIdIn(const CompactModel::Bucket& bucket, BitWindow* window) const {
    const uint32_t entry = window->Take(bucket.bits);
    return bucket.base == CompactModel::kRawBase ? entry : model_.id_at(bucket.base + entry);
  }
  Fault TakeHead(BitWindow* window, uint32_t* c, BlockSections* sections);
  class CountCursor;
  template <bool kIds>
  class IdCursor;
  void TakeWeights(BitWindow* window, uint32_t k);
  uint32_t EntryOfRank(uint32_t rank);

  const RecordFormat& format_;
  const CompactModel& model_;
  const bool has_counts_;
  const uint32_t max_entries_;
  uint64_t masks_[kNumFamilies];
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

// Goes through the counts of a record, two a step.
class RecordDecoder::CountCursor {
 public:
  CountCursor(RecordDecoder* decoder, const BitWindow& window)
      : window_(window),
        model_(decoder->model_),
        pairs_(model_.tables(Family::kCountPair).data()),
        pair_mask_(decoder->mask(Family::kCountPair)),
        count_mask_(decoder->mask(Family::kCount)),
        values_(decoder->record_.values()),
        left_(decoder->record_.size()),
        excess_(decoder->format_.rounds - left_) {}

  bool has_pair() const { return left_ > 2 && excess_ > 0; }
  // REQUIRES: has_pair().
  void TakePair() {
    window_.Refill();
    const uint32_t* const codes = model_.count_codes(Family::kCountPair, CountLevel(left_));
    const uint32_t pair =
        window_.TakeSymbol(pairs_ + codes[std::min(excess_, CompactModel::kMaxExcess)], pair_mask_);
    TakeOne(pair / (kPairLimit + 1), left_);
    TakeOne(pair % (kPairLimit + 1), left_ - 1);
    left_ -= 2;
  }
  // After the pairs: what is left. The record must not be empty.
  Fault Finish(BitWindow* window) {
    if (left_ == 2 && excess_ > 0) {
      window_.Refill();
      Subtract(TakeCount(excess_, 2));
      --left_;
    }
    for (; left_ > 1; --left_) *values_++ = 1;
    if (left_ == 1) *values_ = static_cast<int32_t>(excess_ + 1);
    *window = window_;
    return is_good_ ? Fault::kNone : Fault::kCountSum;
  }

 private:
  uint32_t TakeCount(uint32_t excess, uint32_t left) {
    const uint32_t* const codes = model_.count_codes(Family::kCount, CountLevel(left));
    return window_.TakeValue(
        model_.tables(Family::kCount).data() + codes[std::min(excess, CompactModel::kMaxExcess)],
        count_mask_);
  }
  void TakeOne(uint32_t more, uint32_t left) {
    if (more == kPairLimit && excess_ >= kPairLimit) {
      window_.Refill();
      more += TakeCount(excess_ - kPairLimit, left);
    }
    Subtract(more);
  }
  // More than there is ends the record: its last counts are 1, and it is not good.
  void Subtract(uint32_t more) {
    if (more > excess_) [[unlikely]] {
      is_good_ = false;
      more = excess_;
    }
    *values_++ = static_cast<int32_t>(more + 1);
    excess_ -= more;
  }

  BitWindow window_;
  const CompactModel& model_;
  const HuffmanTables::Entry* pairs_;
  uint64_t pair_mask_, count_mask_;
  int32_t* values_;
  uint32_t left_, excess_;
  bool is_good_ = true;
};

// Goes through the ids of a record, one a step.
template <bool kIds>
class RecordDecoder::IdCursor {
 public:
  IdCursor(RecordDecoder* decoder, const BitWindow& window, uint32_t c)
      : window_(window),
        model_(decoder->model_),
        gaps_(model_.tables(Family::kGap).data()),
        mask_(decoder->mask(Family::kGap)),
        codes_(model_.gap_codes()),
        buckets_(model_.buckets(c)),
        num_buckets_(model_.num_buckets(c)),
        ids_(decoder->record_.ids()),
        found_(decoder->record_.buckets()),
        left_(decoder->record_.size()),
        context_(model_.first_context(c)) {}

  bool has_id() const { return left_ > 0; }
  // REQUIRES: has_id().
  void TakeId() {
    window_.Refill();
    const uint32_t b =
        next_ + window_.TakeValue(gaps_ + codes_[context_ + QuarterLog2(left_)], mask_);
    --left_;
    if (b >= num_buckets_) [[unlikely]] {
      is_good_ = false;
      left_ = 0;
      return;
    }
    const CompactModel::Bucket bucket = buckets_[b];
    if constexpr (kIds) {
      const uint32_t entry = window_.Take(bucket.bits);
      const uint32_t id =
          bucket.base == CompactModel::kRawBase ? entry : model_.id_at(bucket.base + entry);
      *ids_++ = static_cast<int32_t>(id);
      largest_ = std::max(largest_, id);
    } else {
      window_.Drop(bucket.bits);
    }
    *found_++ = static_cast<uint8_t>(b);
    next_ = b + bucket.step;
    context_ = bucket.context;
  }
  Fault Finish(BitWindow* window) const {
    *window = window_;
    if (!is_good_) return Fault::kBucket;
    return largest_ >= model_.format().vocab_size ? Fault::kId : Fault::kNone;
  }

 private:
  BitWindow window_;
  const CompactModel& model_;
  const HuffmanTables::Entry* gaps_;
  uint64_t mask_;
  const uint32_t* codes_;
  const CompactModel::Bucket* buckets_;
  uint32_t num_buckets_;
  int32_t* ids_;
  uint8_t* found_;
  uint32_t left_, context_, next_ = 0, largest_ = 0;
  bool is_good_ = true;
};

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
  if (has_counts_ && record_.size() > 0) {
    CountCursor counts(this, *window);
    while (counts.has_pair()) counts.TakePair();
    fault = counts.Finish(window);
    if (fault != Fault::kNone) [[unlikely]]
      return fault;
  }
  account(&BlockSections::counts);
  IdCursor<kIds> ids(this, *window, *c);
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
    CountCursor a(first, *first_window);
    CountCursor b(second, *second_window);
    while (a.has_pair() && b.has_pair()) {
      a.TakePair();
      b.TakePair();
    }
    while (a.has_pair()) a.TakePair();
    while (b.has_pair()) b.TakePair();
    is_good &= first->record_.size() == 0 || a.Finish(first_window) == Fault::kNone;
    is_good &= second->record_.size() == 0 || b.Finish(second_window) == Fault::kNone;
  }
  IdCursor<true> a(first, *first_window, *first_c);
  IdCursor<true> b(second, *second_window, *second_c);
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
  *token = TakeIdIn(model_.buckets(c)[b], window);
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
