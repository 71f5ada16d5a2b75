#include "sparselogits/compact_encoder.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "sparselogits/compact_layout.h"

namespace sparselogits {

using compact::Family;

namespace {
constexpr uint32_t kUnits = CompactCosts::kUnitsPerBit;
}

// Bits of the records; remembers whether every symbol had a code.
class CompactEncoder::BitSink {
 public:
  BitSink(const CompactEncoder& encoder, Bytes* out) : encoder_(encoder), writer_(out) {}

  void PutSymbol(Family family, uint32_t context, uint32_t symbol) {
    const Codes& codes = encoder_.codes_[static_cast<size_t>(family)];
    const Code code = codes.codes[codes.first[context] * codes.num_symbols + symbol];
    has_all_ &= code.length > 0;
    PutBits(code.bits, code.length);
  }
  void PutBits(uint64_t value, int width) {
    writer_.Put(value, width);
    bits_ += static_cast<uint64_t>(width);
  }
  uint64_t bits() const { return bits_; }
  bool has_all() const { return has_all_; }
  void Align() { writer_.Align(); }

 private:
  const CompactEncoder& encoder_;
  BitWriter writer_;
  uint64_t bits_ = 0;
  bool has_all_ = true;
};

CompactEncoder::CompactEncoder(const ModelContent& content) : content_(content), costs_(content) {
  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    const CodeFamily& family = content.families[f];
    Codes& codes = codes_[f];
    codes.num_symbols =
        ShapeOf(static_cast<Family>(f), content.format, content.num_classes()).num_symbols;
    for (const uint8_t code : family.map) codes.first.push_back(code);
    for (const auto& lengths : family.lengths) {
      const std::vector<uint16_t> bits = CanonicalCodes(lengths);
      for (size_t s = 0; s < lengths.size(); ++s) codes.codes.push_back({bits[s], lengths[s]});
    }
  }
  const uint32_t k = content.num_classes();
  const Codes& codes = codes_[static_cast<size_t>(Family::kClass)];
  const auto even = static_cast<uint16_t>(std::lround(std::log2(k) * kUnits));
  class_costs_.assign((k + size_t{1}) * costs_.stride(), 0x3FFF);
  for (uint32_t before = 0; before <= k; ++before)
    for (uint32_t c = 0; c < k; ++c) {
      uint16_t cost = k == 1 ? uint16_t{0} : even;
      if (!codes.codes.empty()) {
        const Code code = codes.codes[codes.first[before] * codes.num_symbols + c];
        cost = code.length == 0 ? uint16_t{0x3FFF} : static_cast<uint16_t>(code.length * kUnits);
      }
      class_costs_[before * costs_.stride() + c] = cost;
    }
}

// Greedily, position by position: what the ids cost in a class, and the class itself.
void CompactEncoder::ChooseClasses(const BlockView& block) {
  const uint32_t k = content_.num_classes();
  const size_t stride = costs_.stride();
  classes_.assign(block.num_positions(), 0);
  if (k == 1) return;
  sums_.resize(stride);
  std::vector<uint32_t>& sums = sums_;
  size_t entry = 0;
  for (size_t position = 0; position < block.num_positions(); ++position) {
    const uint32_t before = position % compact::kStretch == 0 ? k : classes_[position - 1];
    const uint16_t* const prior = &class_costs_[before * stride];
    for (size_t c = 0; c < stride; ++c) sums[c] = prior[c];
    for (uint32_t i = 0; i < block.entries[position]; ++i) {
      const uint8_t* const row = costs_.of_id(block.token_ids[entry++]);
      for (size_t c = 0; c < stride; ++c) sums[c] += row[c];
    }
    classes_[position] =
        static_cast<uint32_t>(std::min_element(sums.begin(), sums.begin() + k) - sums.begin());
  }
}

template <typename Sink>
void CompactEncoder::PutValue(Family family, uint32_t context, uint32_t value, Sink* sink) {
  const ValueSymbol split = SplitValue(value);
  sink->PutSymbol(family, context, split.symbol);
  if (split.extra_bits > 0) sink->PutBits(split.extra, split.extra_bits);
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
        rank += item->value > own->value || (item->value == own->value && item < own);
    }
    const uint32_t context = format.value_kind == ValueKind::kCounts
                                 ? compact::TokenRankContext(largest, format.rounds)
                                 : 0;
    // Where the vocabulary or the rounds leave one entry and one symbol only, there is no code.
    PutValue(Family::kTokenRank, context, own == items_.end() ? 0 : rank + 1, sink);
    if (own != items_.end()) return;
  }
  const CompactCosts::Place place = costs_.Find(c, token);
  sink->PutSymbol(Family::kTokenBucket, c, place.bucket);
  sink->PutBits(place.offset, place.bits);
}

template <typename Sink>
void CompactEncoder::PutPosition(const BlockView& block, size_t position, size_t entry,
                                 bool put_token, uint32_t previous_class, Sink* sink) {
  const RecordFormat& format = content_.format;
  const bool counts = format.value_kind == ValueKind::kCounts;
  const uint32_t c = classes_[position];
  const uint32_t k = block.entries[position];
  if (content_.num_classes() > 1) sink->PutSymbol(Family::kClass, previous_class, c);
  PutValue(Family::kEntryNumber, c, k, sink);

  items_.resize(k);
  for (uint32_t i = 0; i < k; ++i) {
    items_[i].id = block.token_ids[entry + i];
    items_[i].value = counts ? block.counts[entry + i] : block.weight_bits[entry + i];
    items_[i].place = costs_.Find(c, items_[i].id);
  }
  std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    return a.place.bucket != b.place.bucket ? a.place.bucket < b.place.bucket
                                            : a.place.offset < b.place.offset;
  });

  if (counts) PutCounts(sink);
  const ModelContent::Class& model = content_.classes[c];
  uint32_t next = 0;
  bool is_wide = false;
  for (uint32_t i = 0; i < k; ++i) {
    const CompactCosts::Place& place = items_[i].place;
    PutValue(Family::kGap, compact::GapContext(compact::QuarterLog2(k - i) + compact::kMaxHazard - model.hazards[next],
                                 is_wide),
             place.bucket - next, sink);
    sink->PutBits(place.offset, place.bits);
    is_wide = place.bits > 0;
    next = place.bucket + (is_wide ? 0 : 1);
  }
  if (!counts) {
    const int raw_bits = compact::RawWeightBits(format.weight_dtype);
    for (const Item& item : items_) {
      sink->PutSymbol(Family::kWeight, compact::WeightContext(item.place.bucket),
                      item.value >> raw_bits);
      sink->PutBits(item.value & ((1u << raw_bits) - 1), raw_bits);
    }
  }
  if (put_token) PutToken(block.tokens[position + 1], c, sink);
}

void CompactEncoder::Describe(const BlockView& block, bool store_tokens, SymbolSink* sink) {
  ChooseClasses(block);
  size_t entry = 0;
  for (size_t position = 0; position < block.num_positions(); ++position) {
    const uint32_t before =
        position % compact::kStretch == 0 ? content_.num_classes() : classes_[position - 1];
    PutPosition(block, position, entry, store_tokens && position + 1 < block.num_positions(),
                before, sink);
    entry += block.entries[position];
  }
}

bool CompactEncoder::Encode(const BlockView& block, bool store_tokens, Bytes* out) {
  ChooseClasses(block);
  const size_t n = block.num_positions();
  Bytes records;
  BitSink sink(*this, &records);
  std::vector<uint64_t> starts;  // of each stretch but the first, in bits
  size_t entry = 0;
  for (size_t position = 0; position < n; ++position) {
    const bool is_first = position % compact::kStretch == 0;
    if (is_first && position > 0) starts.push_back(sink.bits());
    PutPosition(block, position, entry, store_tokens && position + 1 < n,
                is_first ? content_.num_classes() : classes_[position - 1], &sink);
    entry += block.entries[position];
  }
  sink.Align();
  if (!sink.has_all()) return false;

  // Starts as what they differ from even steps by, all raised above zero.
  const uint64_t step = sink.bits() / (starts.size() + 1);
  int64_t lowest = 0, highest = 0;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t off = static_cast<int64_t>(starts[i]) - static_cast<int64_t>((i + 1) * step);
    lowest = std::min(lowest, off);
    highest = std::max(highest, off);
  }
  const auto width = static_cast<int>(std::bit_width(static_cast<uint64_t>(highest - lowest)));
  if (width > 32) return false;
  out->push_back(static_cast<uint8_t>(width));
  out->resize(out->size() + 3, 0);
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(step));
  AppendLittle<uint32_t>(out, static_cast<uint32_t>(-lowest));
  BitWriter writer(out);
  const int id_bits = packed::TokenBits(content_.format.vocab_size);
  if (store_tokens) writer.Put(block.tokens[0], id_bits);
  for (size_t i = 0; i < starts.size(); ++i)
    writer.Put(starts[i] - (i + 1) * step - static_cast<uint64_t>(lowest), width);
  writer.Align();
  out->insert(out->end(), records.begin(), records.end());
  return true;
}

}  // namespace sparselogits
