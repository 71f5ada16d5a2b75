#include "sparselogits/sequence_input.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "sparselogits/half.h"
#include "sparselogits/limits.h"
#include "sparselogits/philox.h"
#include "sparselogits/xxh64.h"

namespace sparselogits {
namespace {

template <typename T>
void AppendAll(std::vector<T>* to, const std::vector<T>& from) {
  to->insert(to->end(), from.begin(), from.end());
}

template <typename T>
void DropFront(std::vector<T>* values, size_t count) {
  if (!values->empty())
    values->erase(values->begin(), values->begin() + static_cast<ptrdiff_t>(count));
}

std::string Number(int64_t value) { return std::to_string(value); }
std::string Number(size_t value) { return std::to_string(value); }

// 0, ascending, and its last element is `end`.
Status CheckOffsets(const char* name, std::span<const int64_t> offsets, size_t end,
                    const char* end_name) {
  if (offsets.empty())
    return Status::InvalidArgument(std::string(name) + " must start with 0, got an empty array");
  if (offsets[0] != 0)
    return Status::InvalidArgument(std::string(name) + " must start with 0, got " +
                                   Number(offsets[0]));
  for (size_t i = 1; i < offsets.size(); ++i)
    if (offsets[i] < offsets[i - 1])
      return Status::InvalidArgument(std::string(name) + " must not decrease, got " +
                                     Number(offsets[i]) + " after " + Number(offsets[i - 1]) +
                                     " at index " + Number(i));
  if (offsets.back() != static_cast<int64_t>(end))
    return Status::InvalidArgument(std::string(name) + " must end at the number of " + end_name +
                                   ", got " + Number(offsets.back()) + " for " + Number(end) + " " +
                                   end_name);
  return Status::Ok();
}

Status CheckShapes(const SequenceInput& input, const RecordFormat& format) {
  SPARSELOGITS_RETURN_IF_ERROR(CheckOffsets("sequence_offsets", input.sequence_offsets,
                                            input.input_ids.size(), "input_ids"));
  if (input.sequence_ids.size() + 1 != input.sequence_offsets.size())
    return Status::InvalidArgument("sequence_ids must be one a sequence, got " +
                                   Number(input.sequence_ids.size()) + " for " +
                                   Number(input.sequence_offsets.size() - 1) + " sequences");
  if (!input.fingerprints.empty()) {
    if (format.store_tokens)
      return Status::InvalidArgument(
          "fingerprints must not be given where tokens are stored: these give them");
    if (input.fingerprints.size() != input.sequence_ids.size())
      return Status::InvalidArgument("fingerprints must be one a sequence, got " +
                                     Number(input.fingerprints.size()) + " for " +
                                     Number(input.sequence_ids.size()) + " sequences");
  }
  if (input.offsets.size() != input.input_ids.size() + 1)
    return Status::InvalidArgument("offsets must have one value more than input_ids, got " +
                                   Number(input.offsets.size()) + " offsets for " +
                                   Number(input.input_ids.size()) + " input_ids");
  SPARSELOGITS_RETURN_IF_ERROR(
      CheckOffsets("offsets", input.offsets, input.token_ids.size(), "token_ids"));
  const bool is_counts = format.value_kind == ValueKind::kCounts;
  const size_t values = is_counts ? input.counts.size() : input.weights.size();
  if (values != input.token_ids.size()) {
    const std::string kind = is_counts ? "counts" : "weights";
    return Status::InvalidArgument(kind + " must be one a token_id, got " + Number(values) + " " +
                                   kind + " for " + Number(input.token_ids.size()) + " token_ids");
  }
  return Status::Ok();
}

// Canonicalises one position after the other of one sequence.
class PositionMerger {
 public:
  PositionMerger(const SequenceInput& input, const RecordFormat& format, CanonicalSequences* out)
      : input_(input), format_(format), out_(out) {}

  Status Add(size_t sequence, size_t position) {
    const auto begin = static_cast<size_t>(input_.offsets[position]);
    const auto end = static_cast<size_t>(input_.offsets[position + 1]);
    const auto fail = [&](const std::string& what) {
      const auto first = static_cast<size_t>(input_.sequence_offsets[sequence]);
      return Status::InvalidArgument("sequence_id " +
                                     std::to_string(input_.sequence_ids[sequence]) + ", position " +
                                     Number(position - first) + ": " + what);
    };
    const int64_t token = input_.input_ids[position];
    if (token < 0 || token >= static_cast<int64_t>(format_.vocab_size))
      return fail("input_id " + Number(token) +
                  " is outside 0 ... vocab_size - 1 = " + std::to_string(format_.vocab_size - 1));
    bool ascending = true;
    int64_t previous = -1;
    for (size_t i = begin; i < end; ++i) {
      const int64_t id = input_.token_ids[i];
      if (id < 0 || id >= static_cast<int64_t>(format_.vocab_size))
        return fail("token_id " + Number(id) +
                    " is outside 0 ... vocab_size - 1 = " + std::to_string(format_.vocab_size - 1));
      ascending &= id > previous;
      previous = id;
    }
    out_->tokens.push_back(static_cast<uint32_t>(token));
    order_.resize(end - begin);
    for (size_t i = begin; i < end; ++i) order_[i - begin] = i;
    if (!ascending)
      std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
        return input_.token_ids[a] < input_.token_ids[b];
      });
    return format_.value_kind == ValueKind::kCounts ? AddCounts(fail)
                                                    : AddWeights(fail, sequence, position);
  }

 private:
  // Calls merged(id, first, last) for each run of equal ids, a range of order_.
  template <typename Merged>
  void ForEachId(Merged merged) const {
    for (size_t i = 0; i < order_.size();) {
      size_t j = i + 1;
      const int64_t id = input_.token_ids[order_[i]];
      while (j < order_.size() && input_.token_ids[order_[j]] == id) ++j;
      merged(static_cast<uint32_t>(id), i, j);
      i = j;
    }
  }

  template <typename Fail>
  Status AddCounts(Fail fail) {
    uint64_t sum = 0;
    for (const size_t i : order_) {
      const int64_t count = input_.counts[i];
      if (count < 1 || count > static_cast<int64_t>(format_.rounds))
        return fail("count " + Number(count) + " of token_id " + Number(input_.token_ids[i]) +
                    " is outside 1 ... rounds = " + std::to_string(format_.rounds));
      sum += static_cast<uint64_t>(count);
    }
    if (!order_.empty() && sum != format_.rounds)
      return fail("the counts sum to " + std::to_string(sum) + ", rounds is " +
                  std::to_string(format_.rounds));
    uint32_t merged = 0;
    ForEachId([&](uint32_t id, size_t first, size_t last) {
      int64_t count = 0;
      for (size_t i = first; i < last; ++i) count += input_.counts[order_[i]];
      out_->token_ids.push_back(id);
      out_->counts.push_back(static_cast<uint16_t>(count));
      ++merged;
    });
    out_->entries.push_back(merged);
    return Status::Ok();
  }

  template <typename Fail>
  Status AddWeights(Fail fail, size_t sequence, size_t position) {
    const double largest = LargestWeight(format_.weight_dtype);
    Status status;
    uint32_t merged = 0;
    ForEachId([&](uint32_t id, size_t first, size_t last) {
      double weight = 0;
      bool valid = true;
      for (size_t i = first; i < last && valid; ++i) {
        const double part = input_.weights[order_[i]];
        weight = part >= 0 ? weight + part : part;  // an error shows the part at fault, or the sum
        valid = part >= 0 && weight <= largest;
      }
      if (!valid) {
        status = fail("weight " + std::to_string(weight) + " of token_id " + std::to_string(id) +
                      " is not in 0 ... " + std::to_string(largest) +
                      ", the largest of the cache's weight_dtype");
        return;
      }
      const auto local =
          static_cast<uint64_t>(position - static_cast<size_t>(input_.sequence_offsets[sequence]));
      // + 0.0f turns -0 into 0, the one zero that the format has.
      out_->weight_bits.push_back(NarrowWeight(static_cast<float>(weight) + 0.0f,
                                               format_.weight_dtype, Dither(sequence, local, id)));
      out_->token_ids.push_back(id);
      ++merged;
    });
    if (status.ok() && merged > kMaxEntriesPerRecord)
      status = fail(std::to_string(merged) + " entries are above the limit 65535");
    out_->entries.push_back(merged);
    return status;
  }

  // Keyed by what is stored, so that writing the same cache again gives the same bits.
  uint32_t Dither(size_t sequence, uint64_t position, uint32_t id) const {
    const uint64_t sequence_id = input_.sequence_ids[sequence];
    return Philox4x32({static_cast<uint32_t>(position), id, static_cast<uint32_t>(sequence_id),
                       static_cast<uint32_t>(sequence_id >> 32)},
                      {0x64697468u, 0x65720000u})[0];
  }

  const SequenceInput& input_;
  const RecordFormat& format_;
  CanonicalSequences* out_;
  std::vector<size_t> order_;
};

}  // namespace

void CanonicalSequences::Append(const CanonicalSequences& other) {
  AppendAll(&tokens, other.tokens);
  AppendAll(&entries, other.entries);
  AppendAll(&token_ids, other.token_ids);
  AppendAll(&counts, other.counts);
  AppendAll(&weight_bits, other.weight_bits);
  AppendAll(&sequence_ids, other.sequence_ids);
  AppendAll(&fingerprints, other.fingerprints);
  AppendAll(&lengths, other.lengths);
}

void CanonicalSequences::DropPositions(size_t num_positions, size_t num_entries) {
  DropFront(&tokens, num_positions);
  DropFront(&entries, num_positions);
  DropFront(&token_ids, num_entries);
  DropFront(&counts, num_entries);
  DropFront(&weight_bits, num_entries);
}

Status Canonicalise(const SequenceInput& input, const RecordFormat& format,
                    CanonicalSequences* out) {
  SPARSELOGITS_RETURN_IF_ERROR(CheckShapes(input, format));
  PositionMerger merger(input, format, out);
  for (size_t sequence = 0; sequence < input.sequence_ids.size(); ++sequence) {
    const auto begin = static_cast<size_t>(input.sequence_offsets[sequence]);
    const auto end = static_cast<size_t>(input.sequence_offsets[sequence + 1]);
    if (end - begin > kMaxPositionsPerShard)
      return Status::InvalidArgument("a sequence of " + Number(end - begin) +
                                     " positions is above the limit 2^32 - 1");
    for (size_t position = begin; position < end; ++position)
      SPARSELOGITS_RETURN_IF_ERROR(merger.Add(sequence, position));
    out->sequence_ids.push_back(input.sequence_ids[sequence]);
    out->lengths.push_back(static_cast<uint32_t>(end - begin));
    out->fingerprints.push_back(
        input.fingerprints.empty()
            ? FingerprintTokens(std::span(out->tokens).subspan(begin, end - begin))
            : input.fingerprints[sequence]);
  }
  return Status::Ok();
}

}  // namespace sparselogits
