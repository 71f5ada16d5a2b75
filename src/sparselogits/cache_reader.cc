#include "sparselogits/cache_reader.h"

#include <algorithm>

#include "sparselogits/limits.h"

namespace sparselogits {
namespace {

// The shard that holds an index. REQUIRES: index < starts.back().
size_t FindShard(const std::vector<uint64_t>& starts, uint64_t index) {
  return static_cast<size_t>(std::upper_bound(starts.begin(), starts.end(), index) -
                             starts.begin()) -
         1;
}

}  // namespace

Status CacheReader::Open(const std::vector<ShardRow>& rows, const ShardConfig& config,
                         const Models& models, CheckPayload check_payloads,
                         std::unique_ptr<CacheReader>* out, size_t max_open_shards,
                         ShardFiles files) {
  std::unique_ptr<CacheReader> reader(new CacheReader);
  reader->config_ = config;
  SPARSELOGITS_RETURN_IF_ERROR(ShardPool::Open(rows, config, models, check_payloads,
                                               max_open_shards, files, &reader->shards_));
  for (const ShardRow& row : rows) {
    reader->sequence_starts_.push_back(reader->sequence_starts_.back() + row.totals.num_sequences);
    reader->position_starts_.push_back(reader->position_starts_.back() + row.totals.num_positions);
    reader->num_entries_ += row.totals.num_entries;
  }
  *out = std::move(reader);
  return Status::Ok();
}

Status CacheReader::CheckIndex(const char* what, int64_t index, uint64_t count) const {
  if (index >= 0 && static_cast<uint64_t>(index) < count) return Status::Ok();
  return Status::InvalidArgument(std::string(what) + " " + std::to_string(index) +
                                 " is outside 0 ... " + std::to_string(count) + " - 1");
}

size_t CacheReader::LikelyEntries(uint64_t num_positions) const {
  const double average =
      this->num_positions() == 0
          ? 0
          : static_cast<double>(num_entries_) / static_cast<double>(this->num_positions());
  return static_cast<size_t>(std::min(static_cast<double>(num_positions) * average * 1.2 + 64,
                                      static_cast<double>(kMostReserved)));
}

// Room for what the positions are likely to hold: arrays seldom grow.
void CacheReader::Reserve(uint64_t num_positions, CacheBatch* batch) const {
  const size_t entries = LikelyEntries(num_positions);
  num_positions = std::min(num_positions, kMostReserved);
  batch->records.offsets.Reserve(num_positions + 1);
  batch->records.offsets.Append(0);
  batch->records.token_ids.Reserve(entries);
  if (config_.format.value_kind == ValueKind::kCounts)
    batch->records.counts.Reserve(entries);
  else
    batch->records.weights.Reserve(entries);
  if (config_.format.store_tokens) batch->tokens.Reserve(num_positions);
}

Status CacheReader::FindSequence(int64_t sequence, size_t* shard, uint32_t* local,
                                 std::shared_ptr<const ShardReader>* reader) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckIndex("sequence", sequence, num_sequences()));
  *shard = FindShard(sequence_starts_, static_cast<uint64_t>(sequence));
  *local = static_cast<uint32_t>(static_cast<uint64_t>(sequence) - sequence_starts_[*shard]);
  return shards_->Get(*shard, reader);
}

Status CacheReader::FindRange(int64_t sequence, int64_t start, int64_t stop,
                              SequenceRange* range) const {
  size_t i = 0;
  uint32_t local = 0;
  std::shared_ptr<const ShardReader> shard;
  SPARSELOGITS_RETURN_IF_ERROR(FindSequence(sequence, &i, &local, &shard));
  const uint64_t begin = shard->index().sequence_start(local);
  const auto length = static_cast<int64_t>(shard->index().sequence_start(local + 1) - begin);
  const int64_t until = stop < 0 ? length : stop;
  if (start < 0 || start > until || until > length)
    return Status::InvalidArgument(
        "positions " + std::to_string(start) + " to " + std::to_string(until) + " of sequence " +
        std::to_string(sequence) + ", which has " + std::to_string(length));
  const uint64_t base = position_starts_[i] + begin;
  *range = {base + static_cast<uint64_t>(start), base + static_cast<uint64_t>(until),
            until < length};
  return Status::Ok();
}

Status CacheReader::FindInfo(int64_t sequence, SequenceInfo* info) const {
  size_t i = 0;
  uint32_t local = 0;
  std::shared_ptr<const ShardReader> shard;
  SPARSELOGITS_RETURN_IF_ERROR(FindSequence(sequence, &i, &local, &shard));
  std::span<const SequenceInfo> infos;
  SPARSELOGITS_RETURN_IF_ERROR(shard->Sequences(&infos));
  *info = infos[local];
  return Status::Ok();
}

Status CacheReader::ReadRange(uint64_t first, uint64_t last, CacheBatch* batch) const {
  while (first < last) {
    const size_t i = FindShard(position_starts_, first);
    // A block's worth at a time, because the tokens need their room before they are decoded.
    const uint64_t end =
        std::min({last, position_starts_[i + 1], first + (uint64_t{1} << kMaxBlockLog2)});
    const bool tokens = config_.format.store_tokens;
    std::shared_ptr<const ShardReader> shard;
    SPARSELOGITS_RETURN_IF_ERROR(shards_->Get(i, &shard));
    if (tokens) batch->tokens.EnsureRoom(end - first);
    SPARSELOGITS_RETURN_IF_ERROR(shard->ReadPositions(first - position_starts_[i],
                                                      end - position_starts_[i], &batch->records,
                                                      tokens ? batch->tokens.end() : nullptr));
    if (tokens) batch->tokens.Advance(end - first);
    first = end;
  }
  return Status::Ok();
}

Status CacheReader::ReadSequences(std::span<const int64_t> sequences, int64_t start, int64_t stop,
                                  CacheBatch* batch) const {
  std::vector<SequenceRange> ranges(sequences.size());
  batch->sequence_offsets.Append(0);
  uint64_t total = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    SPARSELOGITS_RETURN_IF_ERROR(FindRange(sequences[i], start, stop, &ranges[i]));
    total += ranges[i].last - ranges[i].first;
    batch->sequence_offsets.Append(static_cast<int64_t>(total));
  }
  Reserve(total, batch);
  for (const SequenceRange& range : ranges)
    SPARSELOGITS_RETURN_IF_ERROR(ReadRange(range.first, range.last, batch));
  return Status::Ok();
}

Status CacheReader::ReadPositions(std::span<const int64_t> positions, CacheBatch* batch) const {
  for (const int64_t position : positions)
    SPARSELOGITS_RETURN_IF_ERROR(CheckIndex("position", position, num_positions()));
  Reserve(positions.size(), batch);
  for (size_t i = 0; i < positions.size();) {
    size_t j = i + 1;  // the run of consecutive positions from i on is one range
    while (j < positions.size() && positions[j] == positions[j - 1] + 1) ++j;
    const auto first = static_cast<uint64_t>(positions[i]);
    SPARSELOGITS_RETURN_IF_ERROR(ReadRange(first, first + (j - i), batch));
    i = j;
  }
  return Status::Ok();
}

Status CacheReader::ReadSequenceTable(std::vector<SequenceInfo>* infos,
                                      std::vector<int64_t>* starts) const {
  infos->resize(num_sequences());
  starts->assign(1, 0);
  for (size_t i = 0; i + 1 < sequence_starts_.size(); ++i) {
    std::shared_ptr<const ShardReader> shard;
    SPARSELOGITS_RETURN_IF_ERROR(shards_->Get(i, &shard));
    SPARSELOGITS_RETURN_IF_ERROR(shard->ReadSequenceTable(infos->data() + sequence_starts_[i]));
    const ShardIndexView& index = shard->index();
    for (uint32_t j = 1; j <= index.num_sequences(); ++j)
      starts->push_back(static_cast<int64_t>(position_starts_[i] + index.sequence_start(j)));
  }
  return Status::Ok();
}

Status CacheReader::ReadPlaces(std::span<const int64_t> sequences,
                               std::vector<SequencePlace>* places) const {
  places->resize(sequences.size());
  for (size_t i = 0; i < sequences.size(); ++i) {
    SequencePlace& place = (*places)[i];
    SequenceRange range;
    SPARSELOGITS_RETURN_IF_ERROR(FindRange(sequences[i], 0, -1, &range));
    SPARSELOGITS_RETURN_IF_ERROR(FindInfo(sequences[i], &place.info));
    place.start = static_cast<int64_t>(range.first);
    place.length = static_cast<int64_t>(range.last - range.first);
  }
  return Status::Ok();
}

Status CacheReader::Admit(int64_t shard) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckIndex("shard", shard, sequence_starts_.size() - 1));
  return shards_->Admit(static_cast<size_t>(shard));
}

Status CacheReader::Dismiss(int64_t shard) const {
  SPARSELOGITS_RETURN_IF_ERROR(CheckIndex("shard", shard, sequence_starts_.size() - 1));
  return shards_->Dismiss(static_cast<size_t>(shard));
}

}  // namespace sparselogits
