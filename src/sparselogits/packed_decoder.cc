#include <algorithm>
#include <string>

#include "sparselogits/bit_reader.h"
#include "sparselogits/dispatch.h"
#include "sparselogits/gamma_decoder.h"
#include "sparselogits/half.h"
#include "sparselogits/limits.h"
#include "sparselogits/packed_codec.h"
#include "sparselogits/packed_cursor.h"
#include "sparselogits/packed_layout.h"

namespace sparselogits {

namespace {

constexpr int kChunkBits = 56;  // of a high-part string looked at together

template <bool Store, typename Cursor>
inline Status TakeCounts(Cursor* cursor, uint64_t* bit, uint32_t rounds, uint16_t* out,
                         uint32_t* num_codes) {
  switch (TakeGammaSum<Store>(cursor->base, bit, cursor->end, rounds, packed::kMaxCountZeros, out,
                              num_codes)) {
    case GammaOutcome::kOk: return Status::Ok();
    case GammaOutcome::kOverrun:
      return cursor->Corrupt("records", "a record runs past the end of its stretch");
    case GammaOutcome::kCodeTooLong:
      return cursor->Corrupt("counts", "a gamma code above the limit 65,535");
    case GammaOutcome::kSumTooLarge: break;
  }
  return cursor->Corrupt(
      "counts", "the counts of a record sum to more than rounds = " + std::to_string(rounds));
}

}  // namespace

PackedCodec::PackedCodec(const RecordFormat& format)
    : format_(format), token_bits_(packed::TokenBits(format.vocab_size)) {}

Status PackedCodec::ParseLayout(ByteSpan content, uint32_t num_positions, Layout* layout) const {
  if (content.size() < packed::kBlockHeaderLength)
    return Status::Corruption("the block's content has " + std::to_string(content.size()) +
                              " bytes, too few for its header")
        .Field("content_length")
        .At(0);
  const uint8_t flags = content[1];
  layout->low_bits = content[0];
  if (layout->low_bits > packed::kMaxLowBits)
    return Status::Corruption(std::to_string(layout->low_bits) + " is above the limit 24")
        .Field("low_bits")
        .At(0);
  if ((flags & ~packed::kKnownFlags) != 0)
    return Status::Corruption("unknown flags " + std::to_string(flags)).Field("flags").At(1);
  if (Load16(content.data() + 2) != 0)
    return Status::Corruption("reserved bytes are not zero").Field("reserved").At(2);
  layout->has_empty = (flags & packed::kHasEmpty) != 0;
  layout->directory_width = (flags & packed::kWideDirectory) != 0 ? 4 : 2;
  layout->num_stretches = packed::NumStretches(num_positions);
  const size_t directory_length =
      size_t{layout->num_stretches - 1} * static_cast<size_t>(layout->directory_width);
  const size_t tokens_length =
      format_.store_tokens ? (size_t{num_positions} * static_cast<size_t>(token_bits_) + 7) / 8 : 0;
  const size_t before = packed::kBlockHeaderLength + directory_length + tokens_length;
  if (content.size() < before)
    return Status::Corruption("the block's content has " + std::to_string(content.size()) +
                              " bytes; its directory and tokens need " + std::to_string(before))
        .Field("content_length")
        .At(0);
  layout->directory = content.subspan(packed::kBlockHeaderLength, directory_length);
  layout->tokens = content.subspan(packed::kBlockHeaderLength + directory_length, tokens_length);
  layout->records = content.subspan(before);
  layout->records_offset = before;
  return Status::Ok();
}

Status PackedCodec::StretchRange(const Layout& layout, uint32_t stretch, Cursor* cursor) const {
  const auto start = [&](uint32_t i) -> uint64_t {
    if (i == 0) return 0;
    if (i == layout.num_stretches) return layout.records.size();
    const uint8_t* const entry =
        layout.directory.data() + size_t{i - 1} * static_cast<size_t>(layout.directory_width);
    return layout.directory_width == 4 ? Load32(entry) : Load16(entry);
  };
  const uint64_t begin = start(stretch);
  const uint64_t end = start(stretch + 1);
  if (begin > end || end > layout.records.size())
    return Status::Corruption("stretch " + std::to_string(stretch) + " goes from byte " +
                              std::to_string(begin) + " to " + std::to_string(end) + " of " +
                              std::to_string(layout.records.size()))
        .Field("directory")
        .At(packed::kBlockHeaderLength);
  *cursor = {layout.records.data(), begin * 8, end * 8, layout.records_offset};
  return Status::Ok();
}

Status PackedCodec::DecodeRecord(const Layout& layout, Cursor* cursor, RecordBatch* out) const {
  const uint8_t* const base = cursor->base;
  const uint64_t end = cursor->end;
  uint64_t bit = cursor->bit;
  const auto overrun = [&] {
    cursor->bit = bit;
    return cursor->Corrupt("records", "a record runs past the end of its stretch");
  };

  if (layout.has_empty) {
    if (bit >= end) return overrun();
    const bool present = (PeekBits(base, bit++) & 1) != 0;
    if (!present) {
      cursor->bit = bit;
      out->offsets.Append(static_cast<int64_t>(out->token_ids.size()));
      return Status::Ok();
    }
  }
  if (bit >= end) return overrun();

  uint32_t k = 0;
  if (format_.value_kind == ValueKind::kCounts) {
    // An entry takes at least one bit, so the bits that are left bound what must be allocated.
    out->counts.EnsureRoom(std::min<uint64_t>(end - bit, format_.rounds) + GammaRun::kMaxCodes);
    SPARSELOGITS_RETURN_IF_ERROR(
        TakeCounts<true>(cursor, &bit, format_.rounds, out->counts.end(), &k));
  } else {
    k = TakeGamma(base, &bit, packed::kMaxEntryNumberZeros);
    if (k == 0 || k > std::min(kMaxEntriesPerRecord, format_.vocab_size))
      return cursor->Corrupt("entry_numbers",
                             "a record claims more entries than 65,535 or the vocabulary");
    if (k > end - std::min(bit, end)) return overrun();
  }

  out->token_ids.EnsureRoom(k);
  int32_t* const ids = out->token_ids.end();
  const int low_bits = layout.low_bits;
  uint64_t high = 0;      // 2^30 bytes hold more bits than 32 can number
  uint64_t origin = bit;  // where a one at index i would mean high part 0: base of the string + i
  for (uint32_t i = 0;;) {
    if (bit >= end) return overrun();
    uint64_t word = LowBits(PeekBits(base, bit), kChunkBits);
    while (word != 0) {
      const auto at = static_cast<uint64_t>(std::countr_zero(word));
      high = bit + at - origin;
      ids[i] = static_cast<int32_t>(static_cast<uint32_t>(high) << low_bits);
      word &= word - 1;
      ++origin;
      if (++i == k) {
        bit += at + 1;
        goto highs_done;
      }
    }
    bit += kChunkBits;
  }
highs_done:
  if (high > (format_.vocab_size - 1) >> low_bits)
    return cursor->Corrupt("ids", "an id is above the limit vocab_size - 1 = " +
                                      std::to_string(format_.vocab_size - 1));

  if (bit + uint64_t{k} * static_cast<uint64_t>(low_bits) > end) return overrun();
  int32_t previous = -1;
  bool ascending = true;
  for (uint32_t i = 0; i < k; ++i) {
    const int32_t id = ids[i] | static_cast<int32_t>(LowBits(PeekBits(base, bit), low_bits));
    bit += static_cast<uint64_t>(low_bits);
    ascending &= id > previous;
    ids[i] = previous = id;
  }
  if (!ascending) return cursor->Corrupt("ids", "the ids of a record do not ascend");
  if (static_cast<uint32_t>(previous) >= format_.vocab_size)
    return cursor->Corrupt("ids", "id " + std::to_string(previous) +
                                      " is above the limit vocab_size - 1 = " +
                                      std::to_string(format_.vocab_size - 1));

  if (format_.value_kind == ValueKind::kCounts) {
    out->counts.Advance(k);
  } else {
    const int width = WeightBits(format_.weight_dtype);
    if (bit + uint64_t{k} * static_cast<uint64_t>(width) > end) return overrun();
    out->weights.EnsureRoom(k);
    float* const weights = out->weights.end();
    bool valid = true;
    for (uint32_t i = 0; i < k; ++i) {
      const auto bits = static_cast<uint32_t>(LowBits(PeekBits(base, bit), width));
      bit += static_cast<uint64_t>(width);
      weights[i] = WeightFromBits(bits, format_.weight_dtype);
      valid &= std::isfinite(weights[i]) && !std::signbit(weights[i]);
    }
    if (!valid) return cursor->Corrupt("weights", "a weight is NaN, infinite or negative");
    out->weights.Advance(k);
  }
  out->token_ids.Advance(k);
  out->offsets.Append(static_cast<int64_t>(out->token_ids.size()));
  cursor->bit = bit;
  return Status::Ok();
}

// Moves past a record by its structure alone, and tells what its bits were for.
Status PackedCodec::SkipRecord(const Layout& layout, Cursor* cursor,
                               BlockSections* sections) const {
  const uint8_t* const base = cursor->base;
  const uint64_t end = cursor->end;
  uint64_t bit = cursor->bit;
  const auto overrun = [&] {
    return cursor->Corrupt("records", "a record runs past the end of its stretch");
  };
  auto account = [&bit, from = bit](uint64_t* section) mutable {
    *section += bit - from;
    from = bit;
  };

  if (bit >= end) return overrun();
  if (layout.has_empty) {
    const bool present = (PeekBits(base, bit++) & 1) != 0;
    account(&sections->presence);
    if (!present) {
      cursor->bit = bit;
      return Status::Ok();
    }
  }
  uint64_t k = 0;
  if (format_.value_kind == ValueKind::kCounts) {
    uint32_t num_codes = 0;
    SPARSELOGITS_RETURN_IF_ERROR(
        TakeCounts<false>(cursor, &bit, format_.rounds, nullptr, &num_codes));
    k = num_codes;
    account(&sections->counts);
  } else {
    if (bit >= end) return overrun();
    k = TakeGamma(base, &bit, packed::kMaxEntryNumberZeros);
    if (k == 0 || k > end - std::min(bit, end))
      return cursor->Corrupt("entry_numbers", "a record claims more entries than it has bits");
    account(&sections->entry_numbers);
  }
  for (uint64_t left = k;;) {
    if (bit >= end) return overrun();
    uint64_t word = LowBits(PeekBits(base, bit), kChunkBits);
    const auto ones = static_cast<uint64_t>(std::popcount(word));
    if (ones < left) {
      left -= ones;
      bit += kChunkBits;
      continue;
    }
    for (; left > 1; --left) word &= word - 1;
    bit += static_cast<uint64_t>(std::countr_zero(word)) + 1;
    break;
  }
  bit += k * static_cast<uint64_t>(layout.low_bits);
  account(&sections->ids);
  if (format_.value_kind == ValueKind::kWeights) {
    bit += k * static_cast<uint64_t>(WeightBits(format_.weight_dtype));
    account(&sections->weights);
  }
  if (bit > end) return overrun();
  cursor->bit = bit;
  return Status::Ok();
}

Status PackedCodec::Decode(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                           RecordBatch* out, int32_t* tokens) const {
  SPARSELOGITS_RETURN_IF_ERROR(DecodeRange(content, num_positions, first, last, out));
  if (tokens == nullptr) return Status::Ok();
  return DecodeTokens(content, num_positions, first, last, tokens);
}

SPARSELOGITS_FASTEST_INSTRUCTIONS Status PackedCodec::DecodeRange(ByteSpan content,
                                                                  uint32_t num_positions,
                                                                  uint32_t first, uint32_t last,
                                                                  RecordBatch* out) const {
  if (first == last) return Status::Ok();
  Layout layout;
  SPARSELOGITS_RETURN_IF_ERROR(ParseLayout(content, num_positions, &layout));
  BlockSections skipped;
  for (uint32_t position = first; position < last;) {
    const uint32_t stretch = position / kStretchPositions;
    const uint32_t stretch_first = stretch * kStretchPositions;
    const uint32_t stretch_last = std::min(last, stretch_first + kStretchPositions);
    Cursor cursor;
    SPARSELOGITS_RETURN_IF_ERROR(StretchRange(layout, stretch, &cursor));
    for (uint32_t i = stretch_first; i < position; ++i)
      SPARSELOGITS_RETURN_IF_ERROR(SkipRecord(layout, &cursor, &skipped));
    for (; position < stretch_last; ++position)
      SPARSELOGITS_RETURN_IF_ERROR(DecodeRecord(layout, &cursor, out));
  }
  return Status::Ok();
}

Status PackedCodec::DecodeTokens(ByteSpan content, uint32_t num_positions, uint32_t first,
                                 uint32_t last, int32_t* out) const {
  Layout layout;
  SPARSELOGITS_RETURN_IF_ERROR(ParseLayout(content, num_positions, &layout));
  uint64_t bit = uint64_t{first} * static_cast<uint64_t>(token_bits_);
  for (uint32_t position = first; position < last; ++position) {
    const uint64_t token = LowBits(PeekBits(layout.tokens.data(), bit), token_bits_);
    if (token >= format_.vocab_size)
      return Status::Corruption(
                 "token " + std::to_string(token) +
                 " is above the limit vocab_size - 1 = " + std::to_string(format_.vocab_size - 1))
          .Field("tokens")
          .At(static_cast<int64_t>(packed::kBlockHeaderLength + layout.directory.size() + bit / 8));
    *out++ = static_cast<int32_t>(token);
    bit += static_cast<uint64_t>(token_bits_);
  }
  return Status::Ok();
}

}  // namespace sparselogits
