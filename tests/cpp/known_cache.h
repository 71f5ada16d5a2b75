// A cache on disk beside all that it must give: every number follows from the position.
#pragma once

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "sparselogits/cache_reader.h"
#include "sparselogits/shard_writer.h"
#include "temporary_directory.h"

namespace sparselogits::testing {

inline constexpr int64_t kSequenceLength = 50;
inline constexpr int64_t kVocabSize = 1000;
inline constexpr int64_t kRounds = 20;

// Some sequences, the `first` being that of the cache. A position differs from the next one only
// every `repeats` positions: with many, LZ4 makes blocks smaller, so that they are stored wrapped.
struct KnownSequences {
  KnownSequences(int64_t first, int64_t count, int64_t repeats) {
    for (int64_t sequence = first; sequence < first + count; ++sequence) {
      for (int64_t i = 0; i < kSequenceLength; ++i) {
        const int64_t seed = (sequence * kSequenceLength + i) / repeats;
        const int64_t entries = 1 + seed % 5;
        input_ids.push_back(seed * 101 % kVocabSize);
        for (int64_t j = 0; j < entries; ++j) {
          token_ids.push_back(seed * 37 % (kVocabSize - 100) + 7 * j);
          counts.push_back(j == 0 ? kRounds - entries + 1 : 1);
        }
        offsets.push_back(offsets.back() + entries);
      }
      sequence_offsets.push_back(sequence_offsets.back() + kSequenceLength);
      sequence_ids.push_back(static_cast<uint64_t>(sequence * 3 + 1));
    }
  }
  SequenceInput view() const {
    return {input_ids, sequence_offsets, offsets, token_ids, counts, {}, sequence_ids};
  }

  std::vector<int64_t> input_ids, sequence_offsets{0}, offsets{0}, token_ids, counts;
  std::vector<uint64_t> sequence_ids;
};

inline ShardHeader KnownHeader(int64_t repeats) {
  ShardHeader header;
  header.config.format = {static_cast<uint32_t>(kVocabSize), static_cast<uint32_t>(kRounds),
                          ValueKind::kCounts, WeightDtype::kNone, true};
  header.config.sampler = "multinomial";
  header.block_log2 = 9;
  if (repeats > 1) header.incompatible_features = kFeatureLz4Frames;
  return header;
}

inline constexpr uint8_t kNoMetadata[] = {'{', '}'};

inline std::unique_ptr<ShardWriter> CreateShard(const std::string& path, size_t number,
                                                int64_t repeats) {
  ShardHeader header = KnownHeader(repeats);
  header.uuid = {1, static_cast<uint8_t>(number), static_cast<uint8_t>(number >> 8)};
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(path, header, kNoMetadata, nullptr, &writer));
  return writer;
}

// Finishes a shard and tells what its row in a manifest says.
inline ShardRow FinishShard(ShardWriter* writer, const std::string& path) {
  CHECK_OK(writer->Finish(path));
  return {path, writer->uuid(), writer->bytes_written(), writer->totals()};
}

class KnownCache {
 public:
  KnownCache(size_t num_shards, int64_t sequences_per_shard, int64_t repeats)
      : content(0, static_cast<int64_t>(num_shards) * sequences_per_shard, repeats) {
    for (size_t i = 0; i < num_shards; ++i) {
      const std::string path = directory / std::to_string(i).c_str();
      const KnownSequences shard(static_cast<int64_t>(i) * sequences_per_shard, sequences_per_shard,
                                 repeats);
      const std::unique_ptr<ShardWriter> writer = CreateShard(path + ".partial", i, repeats);
      CHECK_OK(writer->Append(shard.view()));
      rows.push_back(FinishShard(writer.get(), path));
    }
    config = KnownHeader(repeats).config;
  }

  std::unique_ptr<CacheReader> Open(size_t max_open_shards = kMaxOpenShards) const {
    std::unique_ptr<CacheReader> reader;
    CHECK_OK(CacheReader::Open(rows, config, {}, CheckPayload::kYes, &reader, max_open_shards));
    return reader;
  }

  TemporaryDirectory directory;
  KnownSequences content;
  std::vector<ShardRow> rows;
  ShardConfig config;
};

// What was read is what the content has at these positions, in this order.
inline void CheckBatch(const KnownSequences& content, std::span<const int64_t> positions,
                       const CacheBatch& batch) {
  CHECK_EQ(batch.records.offsets.size(), positions.size() + 1);
  CHECK_EQ(batch.tokens.size(), positions.size());
  int64_t at = 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto position = static_cast<size_t>(positions[i]);
    CHECK_EQ(batch.tokens[i], content.input_ids[position]);
    for (int64_t from = content.offsets[position]; from < content.offsets[position + 1]; ++from) {
      CHECK_EQ(batch.records.token_ids[static_cast<size_t>(at)],
               content.token_ids[static_cast<size_t>(from)]);
      CHECK_EQ(batch.records.counts[static_cast<size_t>(at++)],
               content.counts[static_cast<size_t>(from)]);
    }
    CHECK_EQ(batch.records.offsets[i + 1], at);
  }
}

inline void CheckPositions(const KnownSequences& content, const CacheReader& reader,
                           std::span<const int64_t> positions) {
  CacheBatch batch;
  CHECK_OK(reader.ReadPositions(positions, &batch));
  CheckBatch(content, positions, batch);
}

inline void CheckSequences(const KnownSequences& content, const CacheReader& reader,
                           std::span<const int64_t> sequences) {
  CacheBatch batch;
  CHECK_OK(reader.ReadSequences(sequences, 0, -1, &batch));
  std::vector<int64_t> positions;
  for (const int64_t sequence : sequences)
    for (int64_t i = 0; i < kSequenceLength; ++i)
      positions.push_back(sequence * kSequenceLength + i);
  CheckBatch(content, positions, batch);
}

inline void CheckTable(const KnownSequences& content, const CacheReader& reader) {
  std::vector<SequenceInfo> infos;
  std::vector<int64_t> starts;
  CHECK_OK(reader.ReadSequenceTable(&infos, &starts));
  CHECK_EQ(infos.size(), reader.num_sequences());
  for (size_t i = 0; i < infos.size(); ++i) {
    CHECK_EQ(infos[i].sequence_id, content.sequence_ids[i]);
    CHECK_EQ(starts[i + 1], content.sequence_offsets[i + 1]);
  }
}

// Everything that a reader has, and that it has this many sequences.
inline void CheckAll(const KnownSequences& content, const CacheReader& reader,
                     size_t num_sequences) {
  CHECK_EQ(reader.num_sequences(), num_sequences);
  std::vector<int64_t> sequences;
  for (size_t i = 0; i < num_sequences; ++i) sequences.push_back(static_cast<int64_t>(i));
  CheckSequences(content, reader, sequences);
  CheckTable(content, reader);
}

// How many memory maps of this process name files of a directory.
inline size_t CountMaps(const TemporaryDirectory& directory) {
  std::ifstream maps("/proc/self/maps");
  size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    if (line.find(directory / "") != std::string::npos) ++count;
  return count;
}

}  // namespace sparselogits::testing
