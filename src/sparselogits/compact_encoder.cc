#include "sparselogits/compact_encoder.h"

#include <algorithm>
#include <cmath>

#include "sparselogits/bit_writer.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/dispatch.h"
#include "sparselogits/rank_ascending.h"

namespace sparselogits {

using compact::Family;

namespace {

constexpr uint32_t kUnits = CompactCosts::kUnitsPerBit;
constexpr uint16_t kNoCode = 0x3FFF;  // the cost of a class without one

typedef uint8_t CostLanes __attribute__((vector_size(16), aligned(1)));
typedef uint16_t SumLanes __attribute__((vector_size(32)));
typedef uint32_t WideLanes __attribute__((vector_size(64), aligned(4)));
constexpr size_t kLanes = 16;  // the stride of the costs is a multiple

// The class whose costs of the ids and of itself, `prior`, sum up to least.
uint32_t CheapestClass(const CompactCosts& costs, const uint16_t* prior, const uint32_t* ids,
                       uint32_t num_ids, uint32_t num_classes, uint32_t* sums) {
  constexpr uint32_t kBatch = 200;  // costs that add up in 16 bits
  std::copy(prior, prior + costs.stride(), sums);
  for (uint32_t from = 0; from < num_ids; from += kBatch) {
    const uint8_t* rows[kBatch];
    const uint32_t number = std::min(num_ids - from, kBatch);
    for (uint32_t i = 0; i < number; ++i) rows[i] = costs.of_id(ids[from + i]);
    for (size_t at = 0; at < costs.stride(); at += kLanes) {
      SumLanes sum = {};
      for (uint32_t i = 0; i < number; ++i)
        sum += __builtin_convertvector(*reinterpret_cast<const CostLanes*>(rows[i] + at), SumLanes);
      *reinterpret_cast<WideLanes*>(sums + at) += __builtin_convertvector(sum, WideLanes);
    }
  }
  uint32_t least = sums[0];  // found first and looked for then: both loops are free of branches
  for (uint32_t c = 0; c < num_classes; ++c) least = std::min(least, sums[c]);
  return static_cast<uint32_t>(std::find(sums, sums + num_classes, least) - sums);
}

template <typename Sink>
void PutValue(Family family, uint32_t context, uint32_t value, Sink* sink) {
  const ValueSymbol split = SplitValue(value);
  sink->PutSymbol(family, context, split.symbol);
  if (split.extra_bits > 0) sink->PutBits(split.extra, split.extra_bits);
}

}  // namespace

// The bits of the symbols; remembers where stretches start, and whether each symbol had a code.
class CompactEncoder::CodedSink {
 public:
  explicit CodedSink(const CompactEncoder& encoder) : encoder_(encoder), writer_(&records_) {}

  void BeginStretch() { starts_.push_back(writer_.bits()); }
  void PutSymbol(Family family, uint32_t context, uint32_t symbol) {
    const Codes& codes = encoder_.codes_[static_cast<size_t>(family)];
    const Code code = codes.codes[codes.first[context] + symbol];
    has_all_ &= code.length > 0;
    writer_.Put(code.bits, code.length);
  }
  void PutBits(uint64_t value, int width) { writer_.Put(value, width); }

  bool has_all() const { return has_all_; }
  // Of each stretch, in bits.
  const std::vector<uint64_t>& starts() const { return starts_; }
  uint64_t bits() const { return writer_.bits(); }
  const Bytes& Finish() {
    writer_.Align();
    return records_;
  }

 private:
  const CompactEncoder& encoder_;
  Bytes records_;
  BitWriter writer_;
  std::vector<uint64_t> starts_;
  bool has_all_ = true;
};

CompactEncoder::CompactEncoder(const ModelContent& content) : content_(content), costs_(content) {
  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    const CodeFamily& family = content.families[f];
    Codes& codes = codes_[f];
    for (const auto& lengths : family.lengths) {
      const std::vector<uint16_t> bits = CanonicalCodes(lengths);
      for (size_t s = 0; s < lengths.size(); ++s) codes.codes.push_back({bits[s], lengths[s]});
    }
    for (const uint8_t code : family.map)
      codes.first.push_back(code * static_cast<uint32_t>(family.lengths[0].size()));
  }

  const uint32_t k = content.num_classes();
  const Codes& codes = codes_[static_cast<size_t>(Family::kClass)];
  const auto even = static_cast<uint16_t>(std::lround(std::log2(k) * kUnits));
  class_costs_.assign((k + size_t{1}) * costs_.stride(), kNoCode);
  for (uint32_t before = 0; before <= k; ++before)
    for (uint32_t c = 0; c < k; ++c) {
      uint16_t& cost = class_costs_[before * costs_.stride() + c];
      const uint32_t length = codes.codes.empty() ? 0 : codes.codes[codes.first[before] + c].length;
      if (codes.codes.empty())
        cost = even;
      else if (length > 0)
        cost = static_cast<uint16_t>(length * kUnits);
    }
}

// Greedily, position by position: what the ids cost in a class, and the class itself.
void CompactEncoder::ChooseClasses(const BlockView& block) {
  const uint32_t k = content_.num_classes();
  classes_.assign(block.num_positions(), 0);
  if (k == 1) return;
  std::vector<uint32_t> sums(costs_.stride());
  const uint32_t* ids = block.token_ids.data();
  for (size_t position = 0; position < block.num_positions(); ++position) {
    const uint16_t* const prior = &class_costs_[ClassBefore(position) * costs_.stride()];
    classes_[position] = CheapestClass(costs_, prior, ids, block.entries[position], k, sums.data());
    ids += block.entries[position];
  }
}

// The items of a position, in the order of their places.
void CompactEncoder::PlaceItems(const BlockView& block, size_t position, size_t entry) {
  const uint32_t c = classes_[position];
  const uint32_t k = block.entries[position];
  const bool counts = !block.counts.empty();
  if (keys_.size() < k + kRankLanes) {
    keys_.resize(k + kRankLanes);
    ranks_.resize(k + kRankLanes);
    unsorted_.resize(k);
  }
  for (uint32_t i = 0; i < k; ++i)
    ranks_[i] = static_cast<int32_t>(costs_.RankOf(c, block.token_ids[entry + i]));
  for (uint32_t i = 0; i < k; ++i) {
    const uint32_t id = block.token_ids[entry + i];
    const uint32_t value = counts ? block.counts[entry + i] : block.weight_bits[entry + i];
    const CompactCosts::Place place = costs_.Find(c, id, static_cast<uint32_t>(ranks_[i]));
    unsorted_[i] = {id, value, place};
    // Bucket and entry fill 32 bits; the sign bit turns their order into that of signed numbers.
    static_assert(compact::kMaxBuckets << compact::kMaxIdBits == 0);
    keys_[i] = static_cast<int32_t>((place.bucket << compact::kMaxIdBits | place.entry) ^ 1u << 31);
  }
  RankAscending(keys_.data(), k, ranks_.data());
  items_.resize(k);
  for (uint32_t i = 0; i < k; ++i) items_[static_cast<size_t>(ranks_[i])] = unsorted_[i];
}

// What the counts exceed 1 by, two together, as long as rounds are left; the last one follows.
template <typename Sink>
void CompactEncoder::PutCounts(Sink* sink) {
  const auto k = static_cast<uint32_t>(items_.size());
  uint32_t excess = content_.format.rounds - k;
  const auto put_rest = [&](uint32_t more, uint32_t left) {
    if (more >= compact::kPairLimit)
      PutValue(Family::kCount, compact::CountContext(excess - compact::kPairLimit, left),
               more - compact::kPairLimit, sink);
    excess -= more;
  };
  uint32_t left = k;
  for (; left > 2 && excess > 0; left -= 2) {
    const uint32_t a = items_[k - left].value - 1;
    const uint32_t b = items_[k - left + 1].value - 1;
    sink->PutSymbol(Family::kCountPair, compact::CountContext(excess, left),
                    std::min(a, compact::kPairLimit) * (compact::kPairLimit + 1) +
                        std::min(b, compact::kPairLimit));
    put_rest(a, left);
    put_rest(b, left - 1);
  }
  if (left == 2 && excess > 0)
    PutValue(Family::kCount, compact::CountContext(excess, left), items_[k - 2].value - 1, sink);
}

template <typename Sink>
void CompactEncoder::PutIds(uint32_t c, Sink* sink) {
  const auto k = static_cast<uint32_t>(items_.size());
  const uint8_t* const hazards = content_.classes[c].hazards.data();
  uint32_t next = 0;
  bool is_wide = false;
  for (uint32_t i = 0; i < k; ++i) {
    const CompactCosts::Place& place = items_[i].place;
    const uint32_t sum = compact::QuarterLog2(k - i) + compact::kMaxHazard - hazards[next];
    PutValue(Family::kGap, compact::GapContext(sum, is_wide), place.bucket - next, sink);
    sink->PutBits(place.entry, place.bits);
    is_wide = place.bits > 0;
    next = place.bucket + (is_wide ? 0 : 1);
  }
}

// The next input token: its rank among the entries by value, or where the model has it.
template <typename Sink>
void CompactEncoder::PutToken(uint32_t token, uint32_t c, Sink* sink) {
  const RecordFormat& format = content_.format;
  if (!items_.empty()) {
    uint32_t largest = 0, rank = 0;
    const auto own = std::find_if(items_.begin(), items_.end(),
                                  [token](const Item& item) { return item.id == token; });
    for (auto item = items_.begin(); item != items_.end(); ++item) {
      largest = std::max(largest, item->value);
      if (own != items_.end())
        rank += item->value > own->value || (item->value == own->value && item <= own);
    }
    const uint32_t context = format.value_kind == ValueKind::kCounts
                                 ? compact::TokenRankContext(largest, format.rounds)
                                 : 0;
    PutValue(Family::kTokenRank, context, rank, sink);
    if (rank > 0) return;
  }
  const CompactCosts::Place place = costs_.Find(c, token);
  sink->PutSymbol(Family::kTokenBucket, c, place.bucket);
  sink->PutBits(place.entry, place.bits);
}

template <typename Sink>
void CompactEncoder::PutPosition(const BlockView& block, bool store_tokens, size_t position,
                                 size_t entry, Sink* sink) {
  const RecordFormat& format = content_.format;
  const uint32_t c = classes_[position];
  PlaceItems(block, position, entry);
  if (content_.num_classes() > 1) sink->PutSymbol(Family::kClass, ClassBefore(position), c);
  PutValue(Family::kEntryNumber, c, block.entries[position], sink);
  const bool has_counts = format.value_kind == ValueKind::kCounts;
  if (has_counts && !items_.empty()) PutCounts(sink);
  PutIds(c, sink);
  if (!has_counts) {
    const int raw_bits = compact::RawWeightBits(format.weight_dtype);
    for (const Item& item : items_) {
      sink->PutSymbol(Family::kWeight, compact::WeightContext(item.place.bucket),
                      item.value >> raw_bits);
      sink->PutBits(item.value & ((1u << raw_bits) - 1), raw_bits);
    }
  }
  if (store_tokens && position + 1 < block.num_positions())
    PutToken(block.tokens[position + 1], c, sink);
}

template <typename Sink>
void CompactEncoder::PutBlock(const BlockView& block, bool store_tokens, Sink* sink) {
  ChooseClasses(block);
  size_t entry = 0;
  for (size_t position = 0; position < block.num_positions(); ++position) {
    if (position % compact::kStretch == 0) sink->BeginStretch();
    PutPosition(block, store_tokens, position, entry, sink);
    entry += block.entries[position];
  }
}

void CompactEncoder::Describe(const BlockView& block, bool store_tokens, SymbolSink* sink) {
  PutBlock(block, store_tokens, sink);
}

SPARSELOGITS_FASTEST_INSTRUCTIONS void CompactEncoder::PutCoded(const BlockView& block,
                                                                bool store_tokens,
                                                                CodedSink* sink) {
  PutBlock(block, store_tokens, sink);
}

bool CompactEncoder::Encode(const BlockView& block, bool store_tokens, Bytes* out) {
  CodedSink sink(*this);
  PutCoded(block, store_tokens, &sink);
  if (!sink.has_all()) return false;

  // Starts as what they differ from even steps by, all raised above zero. The first one is 0.
  const std::vector<uint64_t>& starts = sink.starts();
  const uint64_t step = sink.bits() / starts.size();
  int64_t lowest = 0, highest = 0;
  for (size_t i = 1; i < starts.size(); ++i) {
    const int64_t off = static_cast<int64_t>(starts[i]) - static_cast<int64_t>(i * step);
    lowest = std::min(lowest, off);
    highest = std::max(highest, off);
  }
  const auto width = static_cast<int>(std::bit_width(static_cast<uint64_t>(highest - lowest)));
  if (width > compact::kMaxStartBits) return false;
  out->push_back(static_cast<uint8_t>(width));
  out->resize(out->size() + 3, 0);
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(step));
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(-lowest));
  BitWriter writer(out);
  if (store_tokens) writer.Put(block.tokens[0], packed::TokenBits(content_.format.vocab_size));
  for (size_t i = 1; i < starts.size(); ++i)
    writer.Put(starts[i] - i * step - static_cast<uint64_t>(lowest), width);
  writer.Align();
  const Bytes& records = sink.Finish();
  out->insert(out->end(), records.begin(), records.end());
  return true;
}

}  // namespace sparselogits
