// What holds for the compact codec whatever the bytes are: it gives what the slow decoder gives, or
// refuses where that does, and what it gives does not depend on how it is asked.
#pragma once

#include <bit>
#include <optional>

#include "record_script.h"
#include "slow_compact_decoder.h"
#include "sparselogits/compact_codec.h"

namespace sparselogits::fuzz {

class CompactChecks {
 public:
  // REQUIRES: all three outlive it.
  CompactChecks(const CompactCodec& codec, const RecordFormat& format, const SlowModel& model)
      : codec_(codec), format_(format), model_(model) {}

  // `num_entries` is what a frame might state.
  void CheckContent(ByteSpan bytes, uint32_t num_positions, uint32_t num_entries) {
    const PaddedCopy padded(bytes);
    content_ = padded.span();
    n_ = num_positions;
    const SlowCompactDecoder slow(content_, format_, model_, n_);
    CheckSoundness(slow, num_entries);
    singles_.clear();
    for (uint32_t p = 0; p < n_; ++p) CheckSingle(slow, p);
    CheckRange(0, n_);
    CheckRange(num_entries % n_, n_);
    CheckRange(n_ / 3, n_ - n_ / 4);
    CheckTokens(slow, 0, n_);
    CheckTokens(slow, num_entries % n_, n_);
    CheckTokens(slow, n_ / 3, n_ - n_ / 4);
    if (slow.sound()) CheckEncoded(BlockOf(slow));
  }

  // A block comes back as it was, where each of its symbols has a code. Returns whether it has.
  bool CheckEncoded(const FlatBlock& block) {
    Bytes encoded = {0xEE};
    if (!codec_.Encode(block.view(format_.value_kind), &encoded)) {
      FUZZ_CHECK(encoded.size() == 1);
      return false;
    }
    const PaddedCopy padded(ByteSpan(encoded).subspan(1));
    content_ = padded.span();
    n_ = block.num_positions();
    FUZZ_CHECK(Check(block.num_entries()) && !Check(block.num_entries() + 1));
    const std::optional<FlatBlock> found = Decode(0, n_, format_.store_tokens);
    FUZZ_CHECK(found && *found == Widened(block));
    return true;
  }

 private:
  bool Check(uint32_t num_entries) const {
    BlockSections s;
    const Status status = codec_.Check(content_, n_, num_entries, &s);
    CheckStatus(status);
    if (status.ok())
      FUZZ_CHECK(s.block_header + s.directory + s.tokens + s.presence + s.counts + s.entry_numbers +
                     s.ids + s.weights + s.stretch_padding + s.classes ==
                 8 * content_.size());
    return status.ok();
  }
  void CheckStatus(const Status& status) const {
    if (status.ok()) return;
    FUZZ_CHECK(!status.field().empty() && !status.message().empty());
    FUZZ_CHECK(status.offset() >= 0 && status.offset() <= static_cast<int64_t>(content_.size()));
  }

  std::optional<FlatBlock> Decode(uint32_t first, uint32_t last, bool with_tokens) const {
    RecordBatch batch;
    batch.offsets.Append(0);
    std::vector<int32_t> tokens(with_tokens ? last - first : 0);
    const Status status =
        codec_.Decode(content_, n_, first, last, &batch, with_tokens ? tokens.data() : nullptr);
    CheckStatus(status);
    if (!status.ok()) return std::nullopt;
    const bool is_counts = format_.value_kind == ValueKind::kCounts;
    FUZZ_CHECK(batch.offsets.size() == size_t{last - first} + 1);
    FUZZ_CHECK(batch.offsets[last - first] == static_cast<int64_t>(batch.token_ids.size()));
    FUZZ_CHECK((is_counts ? batch.counts.size() : batch.weights.size()) == batch.token_ids.size());
    FlatBlock flat;
    flat.tokens.assign(tokens.begin(), tokens.end());
    for (uint32_t i = 0; i < last - first; ++i)
      flat.entries.push_back(static_cast<uint32_t>(batch.offsets[i + 1] - batch.offsets[i]));
    for (size_t i = 0; i < batch.token_ids.size(); ++i) {
      flat.token_ids.push_back(static_cast<uint32_t>(batch.token_ids[i]));
      flat.values.push_back(is_counts ? batch.counts[i]
                                      : std::bit_cast<uint32_t>(batch.weights[i]));
      if (is_counts) flat.counts.push_back(batch.counts[i]);
    }
    return flat;
  }

  void Append(const SlowRecord& record, FlatBlock* block) const {
    block->entries.push_back(static_cast<uint32_t>(record.token_ids.size()));
    block->token_ids.insert(block->token_ids.end(), record.token_ids.begin(),
                            record.token_ids.end());
    block->values.insert(block->values.end(), record.values.begin(), record.values.end());
    if (format_.value_kind == ValueKind::kCounts)
      block->counts.insert(block->counts.end(), record.values.begin(), record.values.end());
  }
  // Weights as the fast decoder gives them: float32.
  FlatBlock Widened(FlatBlock block) const {
    if (format_.value_kind == ValueKind::kWeights)
      for (uint32_t& value : block.values)
        value = std::bit_cast<uint32_t>(WeightFromBits(value, format_.weight_dtype));
    return block;
  }
  FlatBlock BlockOf(const SlowCompactDecoder& slow) const {
    FlatBlock block;
    for (uint32_t p = 0; p < n_; ++p) {
      Append(*slow.record(p), &block);
      if (format_.store_tokens) block.tokens.push_back(*slow.token(p));
    }
    return block;
  }

  void CheckSoundness(const SlowCompactDecoder& slow, uint32_t num_entries) const {
    FUZZ_CHECK(Check(num_entries) == (slow.sound() && slow.num_entries() == num_entries));
    if (slow.sound()) FUZZ_CHECK(Check(static_cast<uint32_t>(slow.num_entries())));
  }

  // A position alone. One behind a bad record of its stretch may be given or refused: a decoder
  // need not look at all of the others.
  void CheckSingle(const SlowCompactDecoder& slow, uint32_t p) {
    const std::optional<FlatBlock> fast = Decode(p, p + 1, false);
    const bool is_first_bad =
        !slow.has_layout() || (!slow.record(p) && (p % 16 == 0 || slow.record(p - 1)));
    FUZZ_CHECK(!fast || !is_first_bad);
    if (slow.has_layout() && slow.record(p)) {
      FlatBlock expected;
      Append(*slow.record(p), &expected);
      FUZZ_CHECK(fast && *fast == Widened(expected));
    }
    singles_.push_back(fast);
  }

  // A range gives what its positions give alone, and is refused where one of them is.
  void CheckRange(uint32_t first, uint32_t last) const {
    FlatBlock joined;
    bool all_given = true;
    for (uint32_t p = first; p < last; ++p) {
      const std::optional<FlatBlock>& one = singles_[p];
      all_given = all_given && one;
      if (!all_given) break;
      joined.entries.insert(joined.entries.end(), one->entries.begin(), one->entries.end());
      joined.token_ids.insert(joined.token_ids.end(), one->token_ids.begin(), one->token_ids.end());
      joined.values.insert(joined.values.end(), one->values.begin(), one->values.end());
      joined.counts.insert(joined.counts.end(), one->counts.begin(), one->counts.end());
    }
    const std::optional<FlatBlock> range = Decode(first, last, false);
    FUZZ_CHECK(range.has_value() == all_given);
    FUZZ_CHECK(!range || *range == joined);
  }

  // Tokens change nothing about the records; they stand with the record before theirs.
  void CheckTokens(const SlowCompactDecoder& slow, uint32_t first, uint32_t last) const {
    if (!format_.store_tokens || first == last) return;
    bool all_good = slow.has_layout();
    for (uint32_t p = first == 0 ? 0 : first - 1; all_good && p < last; ++p)
      all_good = slow.record(p) && (p < first || slow.token(p));
    std::optional<FlatBlock> found = Decode(first, last, true);
    FUZZ_CHECK(found || !all_good);
    std::vector<int32_t> alone(last - first);
    const bool given = codec_.DecodeTokens(content_, n_, first, last, alone.data()).ok();
    FUZZ_CHECK(given || !found);
    if (!found) return;
    FUZZ_CHECK(std::equal(alone.begin(), alone.end(), found->tokens.begin(), found->tokens.end(),
                          [](int32_t a, uint32_t b) { return a == static_cast<int64_t>(b); }));
    for (uint32_t p = first; p < last; ++p) {
      FUZZ_CHECK(found->tokens[p - first] < format_.vocab_size);
      if (slow.token(p)) FUZZ_CHECK(found->tokens[p - first] == *slow.token(p));
    }
    found->tokens.clear();
    const std::optional<FlatBlock> without = Decode(first, last, false);
    FUZZ_CHECK(without && *without == *found);
  }

  const CompactCodec& codec_;
  const RecordFormat& format_;
  const SlowModel& model_;
  ByteSpan content_;
  uint32_t n_ = 0;
  std::vector<std::optional<FlatBlock>> singles_;
};

}  // namespace sparselogits::fuzz
