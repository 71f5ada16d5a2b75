// Takes the records of a compact block one after the other (formats/v1.md section 12.2). All of it is
// inline, so that it is compiled for the instruction sets of whoever uses it. Private to the codec.
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

  // Takes the record at the window; *c is the class of the one before it and becomes its own. Without
  // kIds its ids are passed over. Where `sections` is not null, its bits are added there.
  template <bool kIds>
  Fault Take(BitWindow* window, uint32_t* c, BlockSections* sections = nullptr) {
    uint64_t at = sections == nullptr ? 0 : window->position();
    const auto account = [&](uint64_t BlockSections::*section) {
      if (sections == nullptr) return;
      const uint64_t now = window->position();
      sections->*section += now - at;
      at = now;
    };
    window->Refill();
    *c = model_.num_classes() > 1 ? window->TakeSymbol(code(Family::kClass, *c), mask(Family::kClass))
                                  : 0;
    account(&BlockSections::classes);
    const uint32_t k =
        window->TakeValue(code(Family::kEntryNumber, *c), mask(Family::kEntryNumber));
    if (k > max_entries_) [[unlikely]]
      return Fault::kEntryNumber;
    account(&BlockSections::entry_numbers);
    record_.Resize(k);
    if (k == 0) return window->is_overrun() ? Fault::kOverrun : Fault::kNone;
    Fault fault = Fault::kNone;
    if (has_counts_) {
      fault = TakeCounts(window, k);
      if (fault != Fault::kNone) [[unlikely]]
        return fault;
      account(&BlockSections::counts);
    }
    fault = TakeIds<kIds>(window, k, *c);
    if (fault != Fault::kNone) [[unlikely]]
      return fault;
    account(&BlockSections::ids);
    if (!has_counts_) {
      TakeWeights(window, k);
      account(&BlockSections::weights);
    }
    return window->is_overrun() ? Fault::kOverrun : Fault::kNone;
  }

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
  Fault TakeCounts(BitWindow* taken, uint32_t k);
  template <bool kIds>
  Fault TakeIds(BitWindow* taken, uint32_t k, uint32_t c);
  void TakeWeights(BitWindow* window, uint32_t k);
  uint32_t EntryOfRank(uint32_t rank);

  const RecordFormat& format_;
  const CompactModel& model_;
  const bool has_counts_;
  const uint32_t max_entries_;
  uint64_t masks_[kNumFamilies];
  Record record_;
};

inline Fault RecordDecoder::TakeCounts(BitWindow* taken, uint32_t k) {
  BitWindow window = *taken;
  const HuffmanTables::Entry* const pairs = model_.tables(Family::kCountPair).data();
  const HuffmanTables::Entry* const counts = model_.tables(Family::kCount).data();
  const uint64_t pair_mask = mask(Family::kCountPair);
  const uint64_t count_mask = mask(Family::kCount);
  const auto take_count = [&](uint32_t excess, uint32_t left) {
    const uint32_t* const codes = model_.count_codes(Family::kCount, CountLevel(left));
    return window.TakeValue(counts + codes[std::min(excess, CompactModel::kMaxExcess)],
                            count_mask);
  };
  int32_t* values = record_.values();
  uint32_t excess = format_.rounds - k;
  uint32_t left = k;
  for (; left > 2 && excess > 0; left -= 2) {
    window.Refill();
    const uint32_t* const codes = model_.count_codes(Family::kCountPair, CountLevel(left));
    const uint32_t pair = window.TakeSymbol(
        pairs + codes[std::min(excess, CompactModel::kMaxExcess)], pair_mask);
    uint32_t a = pair / (kPairLimit + 1);
    uint32_t b = pair % (kPairLimit + 1);
    if (a == kPairLimit) {
      if (a > excess) [[unlikely]]
        return Fault::kCountSum;
      a += take_count(excess - kPairLimit, left);
    }
    if (a > excess) [[unlikely]]
      return Fault::kCountSum;
    excess -= a;
    if (b == kPairLimit) {
      if (b > excess) [[unlikely]]
        return Fault::kCountSum;
      window.Refill();
      b += take_count(excess - kPairLimit, left - 1);
    }
    if (b > excess) [[unlikely]]
      return Fault::kCountSum;
    excess -= b;
    values[0] = static_cast<int32_t>(a + 1);
    values[1] = static_cast<int32_t>(b + 1);
    values += 2;
  }
  if (left == 2 && excess > 0) {
    window.Refill();
    const uint32_t more = take_count(excess, 2);
    if (more > excess) [[unlikely]]
      return Fault::kCountSum;
    *values++ = static_cast<int32_t>(more + 1);
    excess -= more;
    --left;
  }
  for (; left > 1; --left) *values++ = 1;
  *values = static_cast<int32_t>(excess + 1);
  *taken = window;
  return Fault::kNone;
}

template <bool kIds>
inline Fault RecordDecoder::TakeIds(BitWindow* taken, uint32_t k, uint32_t c) {
  BitWindow window = *taken;
  const HuffmanTables::Entry* const gaps = model_.tables(Family::kGap).data();
  const uint64_t gap_mask = mask(Family::kGap);
  const uint32_t* const codes = model_.gap_codes();
  const CompactModel::Bucket* const buckets = model_.buckets(c);
  const uint32_t num_buckets = model_.num_buckets(c);
  int32_t* const ids = record_.ids();
  uint8_t* const found = record_.buckets();
  uint32_t context = model_.first_context(c);
  uint32_t next = 0;
  uint32_t largest = 0;
  for (uint32_t i = 0; i < k; ++i) {
    window.Refill();
    const uint32_t b = next + window.TakeValue(gaps + codes[context + QuarterLog2(k - i)], gap_mask);
    if (b >= num_buckets) [[unlikely]]
      return Fault::kBucket;
    const CompactModel::Bucket bucket = buckets[b];
    if constexpr (kIds) {
      const uint32_t id = TakeIdIn(bucket, &window);
      ids[i] = static_cast<int32_t>(id);
      largest = std::max(largest, id);
    } else {
      window.Drop(bucket.bits);
    }
    found[i] = static_cast<uint8_t>(b);
    next = b + bucket.step;
    context = bucket.context;
  }
  *taken = window;
  return largest >= format_.vocab_size ? Fault::kId : Fault::kNone;
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
  const uint32_t b =
      window->TakeSymbol(code(Family::kTokenBucket, c), mask(Family::kTokenBucket));
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
