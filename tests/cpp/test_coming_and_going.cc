// Shards whose files come and go: read while they are admitted, refused before and after, never
// undefined.
#include <atomic>
#include <filesystem>

#include "known_cache.h"
#include "threads.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

constexpr size_t kShards = 4;
constexpr int64_t kPerShard = 3;

std::unique_ptr<CacheReader> OpenNone(const KnownCache& cache, size_t max_open = kMaxOpenShards) {
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open(cache.rows, cache.config, {}, CheckPayload::kYes, &reader, max_open,
                             ShardFiles::kComeAndGo));
  return reader;
}

void CheckRefused(const CacheReader& reader, int64_t sequence) {
  CacheBatch batch;
  const int64_t position = sequence * kSequenceLength;
  std::vector<CacheReader::SequencePlace> places;
  std::vector<SequenceInfo> infos;
  std::vector<int64_t> starts;
  for (const Status& status :
       {reader.ReadSequences({&sequence, 1}, 0, -1, &batch),
        reader.ReadPositions({&position, 1}, &batch), reader.ReadPlaces({&sequence, 1}, &places),
        reader.ReadSequenceTable(&infos, &starts)}) {
    CHECK(status.code() == StatusCode::kInternal);
    CHECK(status.message().find("nobody holds it") != std::string::npos);
  }
}

}  // namespace

TEST(totals_are_those_of_the_rows) {
  const KnownCache cache(kShards, kPerShard, 1);
  const std::unique_ptr<CacheReader> reader = OpenNone(cache);
  CHECK_EQ(reader->num_sequences(), kShards * kPerShard);
  CHECK_EQ(reader->num_positions(), kShards * kPerShard * kSequenceLength);
  CHECK_EQ(CountMaps(cache.directory), size_t{0});
}

TEST(shards_are_read_while_they_are_admitted) {
  const KnownCache cache(kShards, kPerShard, 1);
  const std::unique_ptr<CacheReader> reader = OpenNone(cache, 1);
  for (const int64_t shard : {2, 0, 3}) CHECK_OK(reader->Admit(shard));
  CHECK_EQ(CountMaps(cache.directory), size_t{3});  // whatever max_open says
  const int64_t sequences[] = {8, 0, 11, 7};
  CheckSequences(cache.content, *reader, sequences);
  std::vector<CacheReader::SequencePlace> places;
  CHECK_OK(reader->ReadPlaces(sequences, &places));
  for (size_t i = 0; i < places.size(); ++i) {
    CHECK_EQ(places[i].info.sequence_id, static_cast<uint64_t>(sequences[i] * 3 + 1));
    CHECK_EQ(places[i].start, sequences[i] * kSequenceLength);
    CHECK_EQ(places[i].length, kSequenceLength);
  }
  CheckRefused(*reader, 3);
  CHECK_OK(reader->Dismiss(2));
  CHECK_OK(reader->Dismiss(2));
  CheckRefused(*reader, 8);
  CHECK_EQ(CountMaps(cache.directory), size_t{2});
}

TEST(an_admitted_shard_is_compared_with_its_row) {
  const KnownCache cache(kShards, kPerShard, 1);
  std::vector<ShardRow> rows = cache.rows;
  rows[1].totals.num_entries += 1;
  rows[2].path += ".gone";
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open(rows, cache.config, {}, CheckPayload::kYes, &reader, kMaxOpenShards,
                             ShardFiles::kComeAndGo));
  CHECK(reader->Admit(1).code() == StatusCode::kCorruption);
  CHECK(reader->Admit(2).code() == StatusCode::kIo);
  for (const int64_t none : {int64_t{-1}, int64_t{kShards}}) {
    CHECK(reader->Admit(none).code() == StatusCode::kInvalidArgument);
    CHECK(reader->Dismiss(none).code() == StatusCode::kInvalidArgument);
  }
  CheckRefused(*reader, kPerShard);
}

TEST(shards_that_stay_cannot_be_dismissed) {
  const KnownCache cache(kShards, kPerShard, 1);
  const std::unique_ptr<CacheReader> reader = cache.Open();
  CHECK(reader->Dismiss(0).code() == StatusCode::kInternal);
  CHECK(reader->Admit(0).code() == StatusCode::kInternal);
  CheckAll(cache.content, *reader, kShards * kPerShard);
}

// A reader that holds a shard reads on while others admit it again and dismiss other shards.
TEST(reads_go_on_while_others_are_admitted) {
  const KnownCache cache(kShards, kPerShard, 1);
  const std::unique_ptr<CacheReader> reader = OpenNone(cache);
  CHECK_OK(reader->Admit(0));
  std::atomic<bool> done = false;
  RunThreads(3, [&](int number) {
    const int64_t sequences[] = {0, 1, 2};
    if (number == 0) {
      const AtTheEnd at_the_end{done};
      for (int i = 0; i < 200; ++i) CheckSequences(cache.content, *reader, sequences);
    }
    while (!done) {
      CHECK_OK(reader->Admit(0));
      CHECK_OK(reader->Admit(number));
      if (number == 2) CHECK_OK(reader->Dismiss(number));
    }
  });
}

// What was admitted is mapped: its file may be removed.
TEST(a_file_may_go_before_its_shard) {
  const KnownCache cache(kShards, kPerShard, 1);
  const std::unique_ptr<CacheReader> reader = OpenNone(cache);
  CHECK_OK(reader->Admit(1));
  std::filesystem::remove(cache.rows[1].path);
  const int64_t positions[] = {200, 299};
  CheckPositions(cache.content, *reader, positions);
}

int main() { return RunAll(); }
