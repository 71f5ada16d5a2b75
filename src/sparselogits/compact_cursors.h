// Go through the counts and the ids of a record (formats/v1.md section 12.2, steps 3 and 4), a step
// at a time, so that two records can be taken by turns. Private to the compact codec.
#pragma once

#include <algorithm>

#include "sparselogits/compact_bit_window.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/compact_model.h"
#include "sparselogits/compact_record.h"

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

// Goes through the counts of a record, two a step.
class CountCursor {
 public:
  CountCursor(const CompactModel& model, const BitWindow& window, Record* record)
      : window_(window),
        model_(model),
        pairs_(model.tables(Family::kCountPair).data()),
        pair_mask_(model.tables(Family::kCountPair).mask()),
        count_mask_(model.tables(Family::kCount).mask()),
        values_(record->values()),
        left_(record->size()),
        excess_(model.format().rounds - left_) {}

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
  // After the pairs: what is left of the record, which may be empty.
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
class IdCursor {
 public:
  IdCursor(const CompactModel& model, const BitWindow& window, uint32_t c, Record* record)
      : window_(window),
        model_(model),
        gaps_(model.tables(Family::kGap).data()),
        mask_(model.tables(Family::kGap).mask()),
        codes_(model.gap_codes()),
        buckets_(model.buckets(c)),
        num_buckets_(model.num_buckets(c)),
        ids_(record->ids()),
        found_(record->buckets()),
        left_(record->size()),
        context_(model.first_context(c)) {}

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
      const uint32_t id = model_.IdOf(bucket, window_.Take(bucket.bits));
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

}  // namespace sparselogits::compact
