#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/compact_record.h"
#include "sparselogits/compact_stretch.h"
#include "sparselogits/dispatch.h"
#include "sparselogits/half.h"
#include "sparselogits/layout_checks.h"
#include "sparselogits/limits.h"

namespace sparselogits {
namespace {

using compact::BitWindow;
using compact::Family;
using compact::Record;
using Bucket = CompactModel::Bucket;
using Entry = HuffmanTables::Entry;

// Where the sections of a block are.
struct Layout {
  uint32_t num_stretches;
  int start_bits;
  int id_bits;
  uint64_t step, bias;    // of the starts
  uint64_t starts_at;     // bit in `fields`
  const uint8_t* fields;  // first token, starts
  uint64_t field_bits;
  ByteSpan records;
  size_t records_offset;  // in the content

  // The first bit of a stretch; behind the last one that of the padding's end.
  uint64_t start(uint32_t stretch) const {
    if (stretch == 0) return 0;
    if (stretch == num_stretches) return uint64_t{records.size()} * 8;
    const uint64_t at = starts_at + (stretch - uint64_t{1}) * static_cast<uint64_t>(start_bits);
    return stretch * step + LowBits(PeekBits(fields, at), start_bits) - bias;
  }
};

Status ParseLayout(ByteSpan content, const RecordFormat& format, uint32_t num_positions,
                   Layout* layout) {
  if (content.size() < compact::kBlockHeaderLength)
    return BadField("content_length", 0,
                    "the block's content has " + std::to_string(content.size()) +
                        " bytes, too few for its header");
  const uint8_t* const in = content.data();
  layout->start_bits = in[0];
  layout->step = Load32(in + 4);
  layout->bias = Load32(in + 8);
  if (layout->start_bits > 32)
    return BadField("start_bits", 0, std::to_string(in[0]) + " is above the limit 32");
  if (!AllZero(in + 1, 3)) return BadField("reserved", 1, "reserved bytes are not zero");
  layout->num_stretches = compact::NumStretches(num_positions);
  layout->id_bits = packed::TokenBits(format.vocab_size);
  layout->starts_at = format.store_tokens ? static_cast<uint64_t>(layout->id_bits) : 0;
  layout->field_bits = layout->starts_at + (layout->num_stretches - uint64_t{1}) *
                                               static_cast<uint64_t>(layout->start_bits);
  const uint64_t before = compact::kBlockHeaderLength + (layout->field_bits + 7) / 8;
  if (content.size() < before)
    return BadField("content_length", 0,
                    "the block's content has " + std::to_string(content.size()) +
                        " bytes; its directory needs " + std::to_string(before));
  layout->fields = in + compact::kBlockHeaderLength;
  layout->records = content.subspan(before);
  layout->records_offset = before;
  return Status::Ok();
}

// Decodes the records of one block.
class BlockDecoder {
 public:
  BlockDecoder(const RecordFormat& format, const CompactModel& model, const Layout& layout)
      : format_(format), model_(model), layout_(layout) {
    const uint32_t k = model.num_classes();
    for (size_t f = 0; f < compact::kNumFamilies; ++f)
      masks_[f] = (uint64_t{1} << ShapeOf(static_cast<Family>(f), format, k).width) - 1;
  }

  // Takes the record at the window; *c is the class of the one before it and becomes its own.
  // Without kIds its ids are passed over.
  template <bool kIds>
  Status Take(BitWindow* window, uint32_t* c);
  // Takes the input token of the position after it.
  template <bool kIds>
  Status TakeToken(BitWindow* window, uint32_t c, uint32_t* token);
  // Appends the record, its ids ascending.
  Status Store(RecordBatch* out);

  Status Corrupt(const BitWindow& window, const char* field, std::string what) const {
    const uint64_t bit = std::min<uint64_t>(window.position(), layout_.records.size() * 8);
    return Status::Corruption(std::move(what))
        .Field(field)
        .At(static_cast<int64_t>(layout_.records_offset + bit / 8));
  }

 private:
  uint64_t mask(Family f) const { return masks_[static_cast<size_t>(f)]; }
  uint32_t TakeIdIn(const Bucket& bucket, BitWindow* window) const {
    const uint32_t entry = window->Take(bucket.bits);
    return bucket.base == CompactModel::kRawBase ? entry : model_.ids()[bucket.base + entry];
  }
  Status TakeCounts(BitWindow* window, uint32_t k);
  template <bool kIds>
  Status TakeIds(BitWindow* window, uint32_t k, uint32_t c);
  Status TakeWeights(BitWindow* window, uint32_t k);
  uint32_t EntryOfRank(uint32_t rank);

  const RecordFormat& format_;
  const CompactModel& model_;
  const Layout& layout_;
  uint64_t masks_[compact::kNumFamilies];
  Record record_;
};

Status BlockDecoder::TakeCounts(BitWindow* taken, uint32_t k) {
  if (k > format_.rounds)
    return Corrupt(*taken, "entry_numbers",
                   std::to_string(k) + " entries are more than the rounds");
  BitWindow window = *taken;
  const auto codes = [this](Family f, uint32_t excess, uint32_t left) {
    return model_.tables(f).data() +
           model_.count_codes(f, compact::CountLevel(left))[std::min(excess,
                                                                     CompactModel::kMaxExcess)];
  };
  const auto bad = [&] {
    return Corrupt(window, "counts",
                   "the counts of a record sum to more than rounds = " +
                       std::to_string(format_.rounds));
  };
  int32_t* values = record_.values();
  uint32_t excess = format_.rounds - k;
  uint32_t left = k;
  for (; left > 2 && excess > 0; left -= 2) {
    window.Refill();
    const uint32_t pair =
        window.TakeSymbol(codes(Family::kCountPair, excess, left), mask(Family::kCountPair));
    uint32_t more[2] = {pair / (compact::kPairLimit + 1), pair % (compact::kPairLimit + 1)};
    for (uint32_t i = 0; i < 2; ++i) {
      if (more[i] > excess) [[unlikely]]
        return bad();
      if (more[i] == compact::kPairLimit) {
        more[i] += window.TakeValue(
            codes(Family::kCount, excess - compact::kPairLimit, left - i), mask(Family::kCount));
        if (more[i] > excess) [[unlikely]]
          return bad();
      }
      excess -= more[i];
      *values++ = static_cast<int32_t>(more[i] + 1);
    }
  }
  if (left == 2 && excess > 0) {
    window.Refill();
    const uint32_t more = window.TakeValue(codes(Family::kCount, excess, 2), mask(Family::kCount));
    if (more > excess) [[unlikely]]
      return bad();
    *values++ = static_cast<int32_t>(more + 1);
    excess -= more;
    --left;
  }
  for (; left > 1; --left) *values++ = 1;
  *values = static_cast<int32_t>(excess + 1);
  *taken = window;
  return Status::Ok();
}

template <bool kIds>
Status BlockDecoder::TakeIds(BitWindow* taken, uint32_t k, uint32_t c) {
  BitWindow window = *taken;
  const Entry* const entries = model_.tables(Family::kGap).data();
  const uint64_t mask = this->mask(Family::kGap);
  const uint32_t* const codes = model_.gap_codes();
  const Bucket* const buckets = model_.buckets(c);
  const uint32_t num_buckets = model_.num_buckets(c);
  int32_t* const ids = record_.ids();
  uint8_t* const found = record_.buckets();
  uint32_t context = model_.first_context(c);
  uint32_t next = 0;
  uint32_t largest = 0;
  for (uint32_t i = 0; i < k; ++i) {
    window.Refill();
    const uint32_t b =
        next + window.TakeValue(entries + codes[context + compact::QuarterLog2(k - i)], mask);
    if (b >= num_buckets) [[unlikely]]
      return Corrupt(window, "ids", "a gap beyond the last bucket of its class");
    const Bucket bucket = buckets[b];
    if constexpr (!kIds) {
      window.Drop(bucket.bits);
    } else {
      const uint32_t id = TakeIdIn(bucket, &window);
      ids[i] = static_cast<int32_t>(id);
      largest = std::max(largest, id);
    }
    found[i] = static_cast<uint8_t>(b);
    next = b + bucket.step;
    context = bucket.context;
  }
  *taken = window;
  if (largest >= format_.vocab_size) [[unlikely]]
    return Corrupt(window, "ids", "an id that is in no list, or above vocab_size - 1");
  return Status::Ok();
}

Status BlockDecoder::TakeWeights(BitWindow* window, uint32_t k) {
  const auto raw_bits = static_cast<uint32_t>(compact::RawWeightBits(format_.weight_dtype));
  const uint8_t* const buckets = record_.buckets();
  for (uint32_t i = 0; i < k; ++i) {
    window->Refill();
    const uint32_t high = window->TakeSymbol(
        model_.code(Family::kWeight, compact::WeightContext(buckets[i])), mask(Family::kWeight));
    record_.values()[i] = static_cast<int32_t>(high << raw_bits | window->Take(raw_bits));
  }
  return Status::Ok();
}

template <bool kIds>
Status BlockDecoder::Take(BitWindow* window, uint32_t* c) {
  window->Refill();
  *c = model_.num_classes() > 1
           ? window->TakeSymbol(model_.code(Family::kClass, *c), mask(Family::kClass))
           : 0;
  const uint32_t k =
      window->TakeValue(model_.code(Family::kEntryNumber, *c), mask(Family::kEntryNumber));
  if (k > std::min(kMaxEntriesPerRecord, format_.vocab_size))
    return Corrupt(*window, "entry_numbers",
                   "a record claims more entries than 65,535 or the vocabulary");
  record_.Resize(k);
  if (k == 0) return Status::Ok();
  const bool has_counts = format_.value_kind == ValueKind::kCounts;
  if (has_counts) SPARSELOGITS_RETURN_IF_ERROR(TakeCounts(window, k));
  SPARSELOGITS_RETURN_IF_ERROR(TakeIds<kIds>(window, k, *c));
  if (!has_counts) SPARSELOGITS_RETURN_IF_ERROR(TakeWeights(window, k));
  if (window->is_overrun())
    return Corrupt(*window, "records", "a record runs past the end of the block");
  return Status::Ok();
}

// The entry with `rank - 1` before it: those of larger values, and of equal ones further in front.
uint32_t BlockDecoder::EntryOfRank(uint32_t rank) {
  const int32_t* const values = record_.values();
  const uint32_t k = record_.size();
  uint64_t bound = ~uint64_t{0};
  for (uint32_t r = 0; r < rank; ++r) {
    uint64_t best = 0;
    for (uint32_t i = 0; i < k; ++i) {
      const uint64_t key = uint64_t{static_cast<uint32_t>(values[i])} << 32 | (0xFFFFFFFFu - i);
      best = key < bound ? std::max(best, key) : best;
    }
    bound = best;
  }
  return 0xFFFFFFFFu - static_cast<uint32_t>(bound);
}

template <bool kIds>
Status BlockDecoder::TakeToken(BitWindow* window, uint32_t c, uint32_t* token) {
  window->Refill();
  const uint32_t k = record_.size();
  if (k > 0) {
    uint32_t context = 0;
    if (format_.value_kind == ValueKind::kCounts)
      context = compact::TokenRankContext(
          static_cast<uint32_t>(*std::max_element(record_.values(), record_.values() + k)),
          format_.rounds);
    const uint32_t rank =
        window->TakeValue(model_.code(Family::kTokenRank, context), mask(Family::kTokenRank));
    if (rank > k)
      return Corrupt(*window, "tokens", "a token's rank is above the record's entries");
    if (rank > 0) {
      if constexpr (kIds) *token = static_cast<uint32_t>(record_.ids()[EntryOfRank(rank)]);
      return Status::Ok();
    }
    window->Refill();
  }
  const uint32_t b =
      window->TakeSymbol(model_.code(Family::kTokenBucket, c), mask(Family::kTokenBucket));
  if (b >= model_.num_buckets(c))
    return Corrupt(*window, "tokens", "a token beyond the last bucket of its class");
  const Bucket bucket = model_.buckets(c)[b];
  *token = TakeIdIn(bucket, window);
  if (window->is_overrun())
    return Corrupt(*window, "tokens", "a token runs past the end of the block");
  if (*token >= format_.vocab_size)
    return Corrupt(*window, "tokens", "a token that is in no list, or above vocab_size - 1");
  return Status::Ok();
}

Status BlockDecoder::Store(RecordBatch* out) {
  const uint32_t k = record_.size();
  const auto bad = [this](const char* field, const char* what) {
    return Status::Corruption(what).Field(field).At(static_cast<int64_t>(layout_.records_offset));
  };
  if (!record_.Rank()) [[unlikely]]
    return bad("ids", "an id occurs twice in a record");
  const int32_t* const ranks = record_.ranks();
  const int32_t* const from_ids = record_.ids();
  const int32_t* const from_values = record_.values();
  out->token_ids.EnsureRoom(k);
  int32_t* const ids = out->token_ids.end();
  if (format_.value_kind == ValueKind::kCounts) {
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
    if (!valid) return bad("weights", "a weight is NaN or infinite");
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
    if (begin > stop || stop > layout.start(layout.num_stretches))
      return Status::Corruption("stretch " + std::to_string(stretch) + " goes from bit " +
                                std::to_string(begin) + " to " + std::to_string(stop) + " of " +
                                std::to_string(layout.start(layout.num_stretches)))
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
