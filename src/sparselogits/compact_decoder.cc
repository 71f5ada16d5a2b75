#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/compact_stretch.h"
#include "sparselogits/dispatch.h"
#include "sparselogits/half.h"
#include "sparselogits/limits.h"

namespace sparselogits {
namespace {

using compact::BitWindow;
using compact::Family;
using Bucket = CompactModel::Bucket;

// Sorting a record looks at its entries in groups of this size.
constexpr uint32_t kLanes = 8;

// Where the sections of a block are.
struct Layout {
  uint32_t num_stretches;
  int start_bits;
  int id_bits;
  uint32_t num_local;
  int local_bits;  // of an offset in a local bucket
  uint64_t step, bias, records_bits;
  uint64_t starts_at, local_at;  // bits in `fields`
  const uint8_t* fields;         // first token, starts, local ids
  uint64_t field_bits;
  ByteSpan records;
  size_t records_offset;  // in the content

  uint32_t local_id(uint32_t i) const {
    return static_cast<uint32_t>(
        LowBits(PeekBits(fields, local_at + uint64_t{i} * static_cast<uint64_t>(id_bits)), id_bits));
  }
  uint64_t start(uint32_t stretch) const {
    if (stretch == 0) return 0;
    if (stretch == num_stretches) return records_bits;
    const uint64_t field = LowBits(
        PeekBits(fields, starts_at + (stretch - uint64_t{1}) * static_cast<uint64_t>(start_bits)),
        start_bits);
    return stretch * step + field - bias;
  }
};

Status ParseLayout(ByteSpan content, const RecordFormat& format, uint32_t num_positions,
                   Layout* layout) {
  const auto bad = [](const char* field, int at, const std::string& what) {
    return Status::Corruption(what).Field(field).At(at);
  };
  if (content.size() < compact::kBlockHeaderLength)
    return bad("content_length", 0, "the block's content has " + std::to_string(content.size()) +
                                        " bytes, too few for its header");
  const uint8_t* const in = content.data();
  layout->start_bits = in[0];
  layout->num_local = Load16(in + 2);
  layout->step = Load32(in + 4);
  layout->bias = Load32(in + 8);
  layout->records_bits = Load32(in + 12);
  if (layout->start_bits > 32)
    return bad("start_bits", 0, std::to_string(in[0]) + " is above the limit 32");
  if (in[1] != 0) return bad("reserved", 1, "reserved bytes are not zero");
  if (layout->num_local > compact::kMaxLocalIds)
    return bad("num_local_ids", 2, std::to_string(layout->num_local) + " is above the limit 4095");
  layout->num_stretches = compact::NumStretches(num_positions);
  layout->id_bits = packed::TokenBits(format.vocab_size);
  layout->local_bits = compact::LocalBucketBits(layout->num_local);
  const auto id_bits = static_cast<uint64_t>(layout->id_bits);
  layout->starts_at = format.store_tokens ? id_bits : 0;
  layout->local_at = layout->starts_at + (layout->num_stretches - uint64_t{1}) *
                                             static_cast<uint64_t>(layout->start_bits);
  layout->field_bits = layout->local_at + layout->num_local * id_bits;
  const uint64_t before = compact::kBlockHeaderLength + (layout->field_bits + 7) / 8;
  if (content.size() < before || content.size() - before != (layout->records_bits + 7) / 8)
    return bad("records_bits", 12,
               "the block's content has " + std::to_string(content.size()) +
                   " bytes; its header asks for " +
                   std::to_string(before + (layout->records_bits + 7) / 8));
  layout->fields = in + compact::kBlockHeaderLength;
  layout->records = content.subspan(before);
  layout->records_offset = before;
  return Status::Ok();
}

// The entries of one record, in the order of their buckets, with room for kLanes more.
struct Record {
  uint32_t size = 0;
  std::vector<uint32_t> ids, values;
  std::vector<uint8_t> buckets;
  std::vector<uint32_t> ranks;

  Record() { Grow(64); }
  void Grow(uint32_t k) {
    if (k + kLanes <= ids.size()) return;
    ids.resize(k + kLanes);
    values.resize(k + kLanes);
    buckets.resize(k + kLanes);
    ranks.resize(k + kLanes);
  }
};

// Decodes the records of one block.
class BlockDecoder {
 public:
  BlockDecoder(const RecordFormat& format, const CompactModel& model, const Layout& layout)
      : format_(format),
        model_(model),
        layout_(layout),
        classes_(model.tables(Family::kClass)),
        entry_numbers_(model.tables(Family::kEntryNumber)),
        counts_(model.tables(Family::kCount)),
        gaps_(model.tables(Family::kGap)) {}

  // Takes the record at the window. `kIds`: its ids too, else only what tells where it ends.
  template <bool kIds>
  Status Take(BitWindow* window, uint32_t* c);
  template <bool kStore>
  Status TakeToken(BitWindow* window, uint32_t c, uint32_t* token);
  Status Store(RecordBatch* out);
  Status Corrupt(const BitWindow& window, const char* field, std::string what) const {
    return Status::Corruption(std::move(what))
        .Field(field)
        .At(static_cast<int64_t>(
            layout_.records_offset +
            std::min<uint64_t>(window.position(), layout_.records_bits) / 8));
  }

 private:
  uint32_t TakeValue(const HuffmanTables& tables, size_t table, BitWindow* window) {
    const uint32_t symbol = window->TakeSymbol(tables, table);
    if (symbol < kExactValues) return symbol;
    return ValueBase(symbol) + window->Take(ExtraBits(symbol));
  }
  uint32_t IdAt(uint32_t place) const {
    if (place < CompactModel::kLocalBase) return model_.ids()[place];
    if (place >= CompactModel::kRawBase) return place - CompactModel::kRawBase;
    const uint32_t i = place - CompactModel::kLocalBase;
    return i < layout_.num_local ? layout_.local_id(i) : CompactModel::kNoId;
  }
  Status TakeCounts(BitWindow* window, uint32_t k);

  const RecordFormat& format_;
  const CompactModel& model_;
  const Layout& layout_;
  const HuffmanTables &classes_, &entry_numbers_, &counts_, &gaps_;
  Record record_;

  friend class SectionCounter;
};

Status BlockDecoder::TakeCounts(BitWindow* window, uint32_t k) {
  if (k > format_.rounds)
    return Corrupt(*window, "entry_numbers",
                   std::to_string(k) + " entries are more than the rounds");
  uint32_t* const values = record_.values.data();
  uint32_t excess = format_.rounds - k;
  uint32_t left = k;
  for (; left > 1 && excess > 0; --left) {
    window->Refill();
    const uint32_t context = compact::CountContext(excess, left);
    const uint32_t more = TakeValue(counts_, model_.code_of(Family::kCount, context), window);
    if (more > excess)
      return Corrupt(*window, "counts",
                     "the counts of a record sum to more than rounds = " +
                         std::to_string(format_.rounds));
    values[k - left] = more + 1;
    excess -= more;
  }
  for (; left > 1; --left) values[k - left] = 1;
  values[k - 1] = excess + 1;
  return Status::Ok();
}

template <bool kIds>
Status BlockDecoder::Take(BitWindow* window, uint32_t* c) {
  const bool has_counts = format_.value_kind == ValueKind::kCounts;
  window->Refill();
  if (model_.num_classes() > 1)
    *c = window->TakeSymbol(classes_, model_.code_of(Family::kClass, *c));
  else
    *c = 0;
  const uint32_t k = TakeValue(entry_numbers_, model_.code_of(Family::kEntryNumber, *c), window);
  if (k > std::min(kMaxEntriesPerRecord, format_.vocab_size))
    return Corrupt(*window, "entry_numbers",
                   "a record claims more entries than 65,535 or the vocabulary");
  record_.Grow(k);
  record_.size = k;
  if (k == 0) return Status::Ok();
  if (has_counts) SPARSELOGITS_RETURN_IF_ERROR(TakeCounts(window, k));

  const Bucket* const buckets = model_.buckets(*c);
  const uint32_t num_buckets = model_.num_buckets(*c);
  uint32_t next = 0;
  uint32_t hazard = model_.first_hazard(*c);
  bool is_wide = false;
  uint32_t largest = 0;
  for (uint32_t i = 0; i < k; ++i) {
    window->Refill();
    const uint32_t context = compact::GapContext(k - i, hazard, is_wide);
    const uint32_t b = next + TakeValue(gaps_, model_.code_of(Family::kGap, context), window);
    if (b >= num_buckets) [[unlikely]]
      return Corrupt(*window, "ids", "a gap beyond the last bucket of its class");
    const Bucket& bucket = buckets[b];
    uint32_t place;
    if (bucket.is_local) [[unlikely]]
      place = CompactModel::kLocalBase +
              ((bucket.base - CompactModel::kLocalBase) << layout_.local_bits) +
              window->Take(layout_.local_bits);
    else
      place = bucket.base + window->Take(bucket.bits);
    if constexpr (kIds) {
      const uint32_t id = IdAt(place);
      record_.ids[i] = id;
      largest = std::max(largest, id);
    }
    if (!has_counts) record_.buckets[i] = static_cast<uint8_t>(b);
    is_wide = bucket.is_wide;
    hazard = bucket.hazard;
    next = b + (is_wide ? 0 : 1);
    if (window->is_overrun()) [[unlikely]]
      break;
  }
  if (largest >= format_.vocab_size) [[unlikely]]
    return Corrupt(*window, "ids", "an id that is in no list, or above vocab_size - 1");
  if (!has_counts) {
    const HuffmanTables& weights = model_.tables(Family::kWeight);
    const int raw_bits = compact::RawWeightBits(format_.weight_dtype);
    for (uint32_t i = 0; i < k; ++i) {
      window->Refill();
      const uint8_t code =
          model_.code_of(Family::kWeight, compact::WeightContext(record_.buckets[i]));
      const uint32_t high = window->TakeSymbol(weights, code);
      record_.values[i] = high << raw_bits | window->Take(raw_bits);
    }
  }
  if (window->is_overrun())
    return Corrupt(*window, "records", "a record runs past the end of the block");
  return Status::Ok();
}

// The input token of the next position.
template <bool kStore>
Status BlockDecoder::TakeToken(BitWindow* window, uint32_t c, uint32_t* token) {
  window->Refill();
  const uint32_t k = record_.size;
  if (k > 0) {
    uint32_t context = 0;
    if (format_.value_kind == ValueKind::kCounts)
      context = compact::TokenRankContext(
          *std::max_element(record_.values.begin(), record_.values.begin() + k), format_.rounds);
    const uint32_t rank = TakeValue(model_.tables(Family::kTokenRank),
                                    model_.code_of(Family::kTokenRank, context), window);
    if (rank > k) return Corrupt(*window, "tokens", "a token's rank is above the record's entries");
    if (rank > 0) {
      if constexpr (kStore) {
        // The entry with `rank - 1` before it: larger values, or equal ones further in front.
        uint64_t bound = ~uint64_t{0};
        for (uint32_t r = 0; r < rank; ++r) {
          uint64_t best = 0;
          for (uint32_t i = 0; i < k; ++i) {
            const uint64_t key = uint64_t{record_.values[i]} << 32 | (0xFFFFFFFFu - i);
            best = key < bound ? std::max(best, key) : best;
          }
          bound = best;
        }
        *token = record_.ids[0xFFFFFFFFu - static_cast<uint32_t>(bound)];
      }
      return Status::Ok();
    }
  }
  window->Refill();
  const HuffmanTables& tables = model_.tables(Family::kTokenBucket);
  const uint32_t b = window->TakeSymbol(tables, model_.code_of(Family::kTokenBucket, c));
  if (b >= model_.num_buckets(c))
    return Corrupt(*window, "tokens", "a token beyond the last bucket of its class");
  const Bucket& bucket = model_.buckets(c)[b];
  const uint32_t place =
      bucket.is_local ? CompactModel::kLocalBase +
                            ((bucket.base - CompactModel::kLocalBase) << layout_.local_bits) +
                            window->Take(layout_.local_bits)
                      : bucket.base + window->Take(bucket.bits);
  if (window->is_overrun())
    return Corrupt(*window, "tokens", "a token runs past the end of the block");
  if constexpr (kStore) {
    *token = IdAt(place);
    if (*token >= format_.vocab_size)
      return Corrupt(*window, "tokens", "a token that is in no list, or above vocab_size - 1");
  }
  return Status::Ok();
}

// Appends the record in the order of its ids.
Status BlockDecoder::Store(RecordBatch* out) {
  const uint32_t k = record_.size;
  const bool has_counts = format_.value_kind == ValueKind::kCounts;
  out->token_ids.EnsureRoom(k);
  if (has_counts)
    out->counts.EnsureRoom(k);
  else
    out->weights.EnsureRoom(k);
  int32_t* const ids = out->token_ids.end();

  // Each entry's rank by counting smaller ids: no branch depends on the data.
  const uint32_t lanes = (k + kLanes - 1) / kLanes * kLanes;
  uint32_t* const from = record_.ids.data();
  uint32_t* const ranks = record_.ranks.data();
  if (k <= 64) {
    for (uint32_t i = k; i < lanes; ++i) from[i] = CompactModel::kNoId;
    for (uint32_t at = 0; at < lanes; at += kLanes) {
      uint32_t rank[kLanes] = {};
      for (uint32_t j = 0; j < k; ++j)
        for (uint32_t lane = 0; lane < kLanes; ++lane) rank[lane] += from[j] < from[at + lane];
      std::copy(rank, rank + kLanes, ranks + at);
    }
  } else {
    std::vector<uint32_t> order(k);
    for (uint32_t i = 0; i < k; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [from](uint32_t a, uint32_t b) { return from[a] < from[b]; });
    for (uint32_t i = 0; i < k; ++i)
      ranks[order[i]] = i > 0 && from[order[i]] == from[order[i - 1]] ? ranks[order[i - 1]] : i;
  }
  uint64_t sum = 0;
  for (uint32_t i = 0; i < k; ++i) {
    sum += ranks[i];
    ids[ranks[i]] = static_cast<int32_t>(from[i]);
  }
  if (sum != uint64_t{k} * (k - 1) / 2)
    return Status::Corruption("an id occurs twice in a record")
        .Field("ids")
        .At(static_cast<int64_t>(layout_.records_offset));
  if (has_counts) {
    uint16_t* const counts = out->counts.end();
    for (uint32_t i = 0; i < k; ++i) counts[ranks[i]] = static_cast<uint16_t>(record_.values[i]);
    out->counts.Advance(k);
  } else {
    float* const weights = out->weights.end();
    bool valid = true;
    for (uint32_t i = 0; i < k; ++i) {
      const float weight = WeightFromBits(record_.values[i], format_.weight_dtype);
      valid &= std::isfinite(weight);
      weights[ranks[i]] = weight;
    }
    if (!valid)
      return Status::Corruption("a weight is NaN or infinite")
          .Field("weights")
          .At(static_cast<int64_t>(layout_.records_offset));
    out->weights.Advance(k);
  }
  out->token_ids.Advance(k);
  out->offsets.Append(static_cast<int64_t>(out->token_ids.size()));
  return Status::Ok();
}

SPARSELOGITS_FASTEST_INSTRUCTIONS Status DecodeBlock(const RecordFormat& format,
                                                     const CompactModel& model, ByteSpan content,
                                                     uint32_t num_positions, uint32_t first,
                                                     uint32_t last, RecordBatch* out,
                                                     int32_t* tokens) {
  Layout layout;
  SPARSELOGITS_RETURN_IF_ERROR(ParseLayout(content, format, num_positions, &layout));
  BlockDecoder decoder(format, model, layout);
  const uint8_t* const base = layout.records.data();
  const uint8_t* const end = base + layout.records.size();
  if (tokens != nullptr && first == 0)
    *tokens++ = static_cast<int32_t>(LowBits(PeekBits(layout.fields, 0), layout.id_bits));
  // A position's token stands with the record before it.
  uint32_t position = first;
  if (tokens != nullptr && first > 0) --position;
  position -= position % compact::kStretch;
  while (position < last) {
    const uint32_t stretch = position / compact::kStretch;
    const uint64_t begin = layout.start(stretch);
    const uint64_t stop = layout.start(stretch + 1);
    if (begin > stop || stop > layout.records_bits)
      return Status::Corruption("stretch " + std::to_string(stretch) + " goes from bit " +
                                std::to_string(begin) + " to " + std::to_string(stop) + " of " +
                                std::to_string(layout.records_bits))
          .Field("directory")
          .At(static_cast<int64_t>(compact::kBlockHeaderLength));
    BitWindow window(base, begin, end);
    uint32_t c = model.num_classes();
    const uint32_t stretch_last =
        std::min(last, (stretch + 1) * compact::kStretch);
    for (; position < stretch_last; ++position) {
      const bool has_token = format.store_tokens && position + 1 < num_positions;
      const bool wants_token = tokens != nullptr && position + 1 >= first && position + 1 < last;
      if (position < first && !wants_token) {
        SPARSELOGITS_RETURN_IF_ERROR(decoder.Take<false>(&window, &c));
        uint32_t unused;
        if (has_token)
          SPARSELOGITS_RETURN_IF_ERROR(decoder.TakeToken<false>(&window, c, &unused));
        continue;
      }
      SPARSELOGITS_RETURN_IF_ERROR(decoder.Take<true>(&window, &c));
      if (has_token) {
        uint32_t token = 0;
        SPARSELOGITS_RETURN_IF_ERROR(decoder.TakeToken<true>(&window, c, &token));
        if (wants_token) *tokens++ = static_cast<int32_t>(token);
      }
      if (position >= first) SPARSELOGITS_RETURN_IF_ERROR(decoder.Store(out));
    }
    if (window.position() > stop)
      return decoder.Corrupt(window, "records", "a record runs past the end of its stretch");
  }
  return Status::Ok();
}

}  // namespace

Status CompactCodec::Decode(ByteSpan content, uint32_t num_positions, uint32_t first,
                            uint32_t last, RecordBatch* out, int32_t* tokens) const {
  if (first == last) return Status::Ok();
  return DecodeBlock(format_, *model_, content, num_positions, first, last, out, tokens);
}

Status CompactCodec::Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
                           BlockSections* sections) const {
  static_cast<void>(content), static_cast<void>(num_positions), static_cast<void>(num_entries);
  static_cast<void>(sections);
  return Status::Ok();
}

}  // namespace sparselogits
