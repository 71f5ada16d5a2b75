// Many threads and one reader, many readers and one writer. Meant for ThreadSanitizer too.
#include <array>
#include <filesystem>
#include <fstream>
#include <random>

#include "check.h"
#include "known_cache.h"
#include "sparselogits/lz4_block.h"
#include "sparselogits/verify.h"
#include "threads.h"

using namespace sparselogits;
using namespace sparselogits::testing;
namespace fs = std::filesystem;

namespace {

constexpr int kThreads = 6;

// Reads of every kind at random places.
void ReadAtRandom(const KnownSequences& content, const CacheReader& reader, int seed, int rounds) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  const auto below = [&random](uint64_t n) { return static_cast<int64_t>(random() % n); };
  for (int round = 0; round < rounds; ++round) {
    std::array<int64_t, 20> positions;
    for (int64_t& position : positions) position = below(reader.num_positions());
    CheckPositions(content, reader, positions);
    std::array<int64_t, 3> sequences;
    for (int64_t& sequence : sequences) sequence = below(reader.num_sequences());
    CheckSequences(content, reader, sequences);
    if (round % 8 == seed % 8) CheckTable(content, reader);
  }
}

// How often a position repeats: without LZ4 nothing can be wrapped.
std::vector<int64_t> Repeats() {
  return LinkedLz4() == nullptr ? std::vector<int64_t>{1} : std::vector<int64_t>{1, 200};
}

bool HasWrappedBlocks(const std::string& path) {
  VerifiedShard verified;
  CHECK_OK(VerifyShard(path, {}, {}, &verified));
  return verified.walker->sections().wrapped_blocks > 0;
}

}  // namespace

TEST(threads_that_share_a_reader_get_what_each_would_get_alone) {
  for (const int64_t repeats : Repeats()) {
    const KnownCache cache(6, 40, repeats);
    CHECK_EQ(HasWrappedBlocks(cache.rows[0].path), repeats > 1);
    for (const size_t max_open : {kMaxOpenShards, size_t{2}, size_t{1}})
      for (int fresh = 0; fresh < 4; ++fresh) {  // the first touches of all blocks at once
        const std::unique_ptr<CacheReader> reader = cache.Open(max_open);
        RunThreads(kThreads,
                   [&](int i) { ReadAtRandom(cache.content, *reader, kThreads * fresh + i, 12); });
        CHECK(CountMaps(cache.directory) <= max_open);
      }
    CHECK_EQ(CountMaps(cache.directory), size_t{0});
  }
}

TEST(no_more_shards_are_mapped_than_the_limit_and_one_for_each_thread) {
  const KnownCache cache(20, 2, 1);
  CHECK_EQ(CountMaps(cache.directory), size_t{0});
  const std::unique_ptr<CacheReader> all = cache.Open();
  CHECK_EQ(CountMaps(cache.directory), size_t{20});
  const std::unique_ptr<CacheReader> few = cache.Open(3);
  CHECK_EQ(CountMaps(cache.directory), size_t{23});
  CheckAll(cache.content, *few, 40);
  CHECK_EQ(CountMaps(cache.directory), size_t{23});
  RunThreads(kThreads, [&](int i) {
    ReadAtRandom(cache.content, *few, i, 10);
    CHECK(CountMaps(cache.directory) <= size_t{23 + 2 * kThreads});  // one read, one just opened
  });
  CHECK_EQ(CountMaps(cache.directory), size_t{23});
}

TEST(the_shard_that_was_used_longest_ago_is_the_one_to_close) {
  const KnownCache cache(4, 1, 1);
  const std::unique_ptr<CacheReader> reader = cache.Open(2);
  const auto read = [&](int64_t shard) {
    CheckSequences(cache.content, *reader, std::array{shard});
  };
  const auto is_open = [&](size_t shard) {
    std::ifstream maps("/proc/self/maps");
    const std::string all{std::istreambuf_iterator<char>(maps), {}};
    return all.find(cache.rows[shard].path + "\n") != std::string::npos;
  };
  read(0);
  read(1);
  read(0);
  read(2);
  CHECK(is_open(0) && !is_open(1) && is_open(2) && !is_open(3));
}

TEST(a_limit_of_no_shards_is_refused) {
  const KnownCache cache(1, 1, 1);
  std::unique_ptr<CacheReader> reader;
  CHECK(CacheReader::Open(cache.rows, cache.config, {}, CheckPayload::kYes, &reader, 0).code() ==
        StatusCode::kInvalidArgument);
}

TEST(a_shard_that_changes_while_it_is_closed_is_refused) {
  const KnownCache cache(3, 2, 1);
  const std::unique_ptr<CacheReader> reader = cache.Open(1);
  const std::string path = cache.rows[0].path, good = path + ".good";
  const std::array<int64_t, 1> first{0}, last{5};
  const auto refusal = [&] {
    CheckSequences(cache.content, *reader, last);  // closes the others
    CacheBatch batch;
    return reader->ReadSequences(first, 0, -1, &batch);
  };
  fs::rename(path, good);
  CHECK(refusal().code() == StatusCode::kIo);
  fs::copy_file(cache.rows[1].path, path);
  CHECK(refusal().code() == StatusCode::kCorruption);
  CHECK_EQ(refusal().field(), "uuid");
  CHECK_EQ(refusal().path(), path);
  fs::copy_file(good, path, fs::copy_options::overwrite_existing);
  fs::resize_file(path, fs::file_size(path) - 8);
  CHECK(refusal().code() == StatusCode::kTruncated);
  fs::rename(good, path);
  CHECK_OK(refusal());
  CheckAll(cache.content, *reader, 6);
}

TEST(readers_beside_a_writer_see_whole_shards_or_none) {
  constexpr int kShards = 12, kSequencesPerShard = 6;
  const TemporaryDirectory directory;
  const KnownSequences content(0, kShards * kSequencesPerShard, 1);
  std::mutex mutex;
  std::vector<ShardRow> manifest;  // what a manifest would list
  std::atomic<bool> done = false;
  const auto path = [&](size_t shard) { return directory / std::to_string(shard).c_str(); };
  const auto write = [&] {
    for (int shard = 0; shard < kShards; ++shard) {
      const std::string final_path = path(static_cast<size_t>(shard));
      const auto writer =
          CreateShard(final_path + ".partial", static_cast<size_t>(shard), /*repeats=*/1);
      for (int i = 0; i < kSequencesPerShard; ++i) {
        CHECK_OK(writer->Append(KnownSequences(shard * kSequencesPerShard + i, 1, 1).view()));
        CHECK_OK(writer->Commit());
      }
      const ShardRow row = FinishShard(writer.get(), final_path);
      const std::lock_guard lock(mutex);
      manifest.push_back(row);
    }
  };
  const auto read = [&] {
    while (!done) {
      std::vector<ShardRow> rows;
      {
        const std::lock_guard lock(mutex);
        rows = manifest;
      }
      std::unique_ptr<CacheReader> reader;
      CHECK_OK(CacheReader::Open(rows, KnownHeader(1).config, {}, CheckPayload::kYes, &reader, 4));
      CheckAll(content, *reader, rows.size() * kSequencesPerShard);
      // The shard that is being written: it is refused, or it is whole and only lacks its name.
      std::unique_ptr<ShardReader> unfinished;
      if (ShardReader::Open(path(rows.size()) + ".partial", {}, CheckPayload::kYes, &unfinished)
              .ok())
        CHECK_EQ(unfinished->footer().totals.num_sequences, uint64_t{kSequencesPerShard});
    }
  };
  RunThreads(4, [&](int i) {
    if (i > 0) return read();
    const AtTheEnd at_the_end{done};
    write();
  });
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open(manifest, KnownHeader(1).config, {}, CheckPayload::kYes, &reader));
  CheckAll(content, *reader, kShards * kSequencesPerShard);
}

int main() { return RunAll(); }
