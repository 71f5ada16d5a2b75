#include "sparselogits/piece_reader.h"

#include <algorithm>

#include "sparselogits/dispatch.h"

namespace sparselogits {
namespace {

// Positions that are decoded before their counts become weights: these are still in a cache then.
constexpr uint64_t kChunk = 4096;

SPARSELOGITS_FASTEST_INSTRUCTIONS void DivideCounts(const uint16_t* counts, size_t n, float rounds,
                                                    float* weights) {
  for (size_t i = 0; i < n; ++i) weights[i] = static_cast<float>(counts[i]) / rounds;
}

void MakeWeights(uint32_t rounds, RecordBatch* records) {
  const size_t n = records->counts.size();
  records->weights.EnsureRoom(n);
  DivideCounts(records->counts.data(), n, static_cast<float>(rounds), records->weights.end());
  records->weights.Advance(n);
  records->counts.Truncate(0);
}

// The record of the position that was read for its token only.
void DropLastRecord(bool has_counts, RecordBatch* records) {
  records->offsets.Truncate(records->offsets.size() - 1);
  const auto kept = static_cast<size_t>(records->offsets.end()[-1]);
  const size_t dropped = records->token_ids.size() - kept;
  records->token_ids.Truncate(kept);
  if (has_counts)
    records->counts.Truncate(records->counts.size() - dropped);
  else
    records->weights.Truncate(kept);
}

// Input ids and labels of a piece. `next` says whether a token follows the n ones.
SPARSELOGITS_FASTEST_INSTRUCTIONS void Widen(const int32_t* tokens, size_t n, bool next,
                                             int64_t* input_ids, int64_t* labels) {
  if (n == 0) return;
  for (size_t i = 0; i < n; ++i) input_ids[i] = tokens[i];
  for (size_t i = 0; i + 1 < n; ++i) labels[i] = tokens[i + 1];
  labels[n - 1] = next ? tokens[n] : kIgnoredLabel;
}

// Puts empty rows behind the positions of each row, in place.
void PadOffsets(std::span<const uint64_t> row_lengths, uint64_t width, Buffer<int64_t>* offsets) {
  const size_t padded = row_lengths.size() * width + 1;
  const size_t before = offsets->size();
  if (before == padded) return;
  offsets->EnsureRoom(padded - before);
  offsets->Advance(padded - before);
  int64_t* const data = offsets->data();
  size_t end = before - 1;  // of the row, among the offsets as they were
  for (size_t row = row_lengths.size(); row-- > 0;) {
    const size_t length = row_lengths[row], start = end - length;
    int64_t* const to = data + row * width;
    const int64_t last = data[end];
    std::fill(to + length, to + width + 1, last);
    std::copy_backward(data + start, data + end, to + length);
    end = start;
  }
}

Status CheckShape(const Pieces& pieces, size_t num_caches) {
  const size_t n = pieces.caches.size();
  const auto& rows = pieces.row_offsets;
  const bool is_partition = !rows.empty() && rows.front() == 0 && std::ranges::is_sorted(rows) &&
                            static_cast<uint64_t>(rows.back()) == n;
  if (pieces.sequences.size() != n || pieces.starts.size() != n || pieces.stops.size() != n ||
      !is_partition)
    return Status::InvalidArgument("the arrays of the pieces do not belong together");
  for (const int32_t cache : pieces.caches)
    if (cache < 0 || static_cast<size_t>(cache) >= num_caches)
      return Status::InvalidArgument("there are " + std::to_string(num_caches) +
                                     " caches, none has index " + std::to_string(cache));
  return Status::Ok();
}

}  // namespace

Status PieceReader::DecodePiece(const CacheReader& cache, const SequenceRange& range,
                                CacheBatch* batch) const {
  const RecordFormat& format = cache.config().format;
  const bool has_counts = format.value_kind == ValueKind::kCounts;
  const bool reads_next = range.has_next && format.store_tokens && range.first < range.last;
  for (uint64_t first = range.first; first < range.last;) {
    const uint64_t last = std::min(range.last, first + kChunk);
    const bool one_more = reads_next && last == range.last;
    SPARSELOGITS_RETURN_IF_ERROR(cache.ReadRange(first, last + (one_more ? 1 : 0), batch));
    if (one_more) DropLastRecord(has_counts, &batch->records);
    if (has_counts) MakeWeights(format.rounds, &batch->records);
    first = last;
  }
  return Status::Ok();
}

Status PieceReader::Decode(const Pieces& pieces, std::span<const SequenceRange> ranges,
                           CacheBatch* batch) const {
  size_t entries = 0, positions = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const uint64_t length = ranges[i].last - ranges[i].first;
    entries += caches_[static_cast<size_t>(pieces.caches[i])]->LikelyEntries(length);
    positions += length + 1;
  }
  entries = std::min<size_t>(entries, kMostReserved);
  positions = std::min<size_t>(positions, kMostReserved);
  RecordBatch& records = batch->records;
  records.offsets = pool_->Take<int64_t>(positions);
  records.offsets.Append(0);
  records.token_ids = pool_->Take<int32_t>(entries);
  records.weights = pool_->Take<float>(entries);
  records.counts = pool_->Take<uint16_t>(std::min(entries, kChunk * 16));
  batch->tokens = pool_->Take<int32_t>(positions);
  for (size_t i = 0; i < ranges.size(); ++i)
    SPARSELOGITS_RETURN_IF_ERROR(
        DecodePiece(*caches_[static_cast<size_t>(pieces.caches[i])], ranges[i], batch));
  return Status::Ok();
}

void PieceReader::LayOutTokens(const Pieces& pieces, std::span<const SequenceRange> ranges,
                               const Buffer<int32_t>& tokens, PieceBatch* out) const {
  const size_t cells = out->num_rows * out->width;
  for (Buffer<int64_t>* const matrix : {&out->input_ids, &out->labels}) {
    *matrix = pool_->Take<int64_t>(cells);
    matrix->Advance(cells);
  }
  const int32_t* from = tokens.data();
  for (size_t row = 0; row < out->num_rows; ++row) {
    size_t at = row * out->width;
    const size_t row_end = at + out->width;
    const auto last = static_cast<size_t>(pieces.row_offsets[row + 1]);
    for (auto i = static_cast<size_t>(pieces.row_offsets[row]); i < last; ++i) {
      const size_t length = ranges[i].last - ranges[i].first;
      if (has_tokens(pieces.caches[i])) {
        const bool next = ranges[i].has_next && length > 0;
        Widen(from, length, next, out->input_ids.data() + at, out->labels.data() + at);
        from += length + (next ? 1 : 0);
      } else {
        std::fill_n(out->input_ids.data() + at, length, pad_token_id_);
        std::fill_n(out->labels.data() + at, length, kIgnoredLabel);
      }
      at += length;
    }
    std::fill(out->input_ids.data() + at, out->input_ids.data() + row_end, pad_token_id_);
    std::fill(out->labels.data() + at, out->labels.data() + row_end, kIgnoredLabel);
  }
}

Status PieceReader::Read(const Pieces& pieces, PieceBatch* out) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckShape(pieces, caches_.size()));
  const size_t n = pieces.caches.size();
  std::vector<SequenceRange> ranges(n);
  out->lengths.resize(n);
  out->infos.resize(n);
  for (size_t i = 0; i < n; ++i) {
    const CacheReader& cache = *caches_[static_cast<size_t>(pieces.caches[i])];
    SPARSELOGITS_RETURN_IF_ERROR(
        cache.FindRange(pieces.sequences[i], pieces.starts[i], pieces.stops[i], &ranges[i]));
    SPARSELOGITS_RETURN_IF_ERROR(cache.FindInfo(pieces.sequences[i], &out->infos[i]));
    out->lengths[i] = static_cast<int64_t>(ranges[i].last - ranges[i].first);
  }
  out->num_rows = pieces.row_offsets.size() - 1;
  std::vector<uint64_t> row_lengths(out->num_rows);
  for (size_t row = 0; row < out->num_rows; ++row)
    for (int64_t i = pieces.row_offsets[row]; i < pieces.row_offsets[row + 1]; ++i)
      row_lengths[row] += static_cast<uint64_t>(out->lengths[static_cast<size_t>(i)]);
  out->width = row_lengths.empty() ? 0 : *std::ranges::max_element(row_lengths);

  // Decoded first and laid out then: only what was decoded is worth the memory of its padding.
  CacheBatch batch;
  SPARSELOGITS_RETURN_IF_ERROR(Decode(pieces, ranges, &batch));
  PadOffsets(row_lengths, out->width, &batch.records.offsets);
  LayOutTokens(pieces, ranges, batch.tokens, out);
  out->offsets = std::move(batch.records.offsets);
  out->token_ids = std::move(batch.records.token_ids);
  out->weights = std::move(batch.records.weights);
  pool_->Give(&batch.records.counts);
  pool_->Give(&batch.tokens);
  return Status::Ok();
}

}  // namespace sparselogits
