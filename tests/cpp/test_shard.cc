// Shards on disk: write, read, commit, recover, and what a flipped bit or a cut does.
#include <filesystem>
#include <fstream>
#include <numeric>

#include "check.h"
#include "random_block.h"
#include "sparselogits/cache_reader.h"
#include "sparselogits/half.h"
#include "sparselogits/recover.h"
#include "sparselogits/shard_writer.h"
#include "sparselogits/verify.h"
#include "temporary_directory.h"

using namespace sparselogits;
using sparselogits::testing::AllFormats;
using sparselogits::testing::RandomBlock;
using sparselogits::testing::TemporaryDirectory;
namespace fs = std::filesystem;

namespace {

ShardHeader MakeHeader(const RecordFormat& format) {
  ShardHeader header;
  for (size_t i = 0; i < header.uuid.size(); ++i) header.uuid[i] = static_cast<uint8_t>(i + 1);
  header.config.format = format;
  header.config.sampler = "multinomial";
  header.block_log2 = 6;
  return header;
}

// The arrays of one call of Append, made from a random block cut into sequences of 50 positions.
struct Input {
  Input(const RecordFormat& format, size_t num_positions, std::mt19937* random)
      : block(format, num_positions, 10, random) {
    input_ids.assign(block.tokens.begin(), block.tokens.end());
    token_ids.assign(block.token_ids.begin(), block.token_ids.end());
    counts.assign(block.counts.begin(), block.counts.end());
    for (const uint32_t bits : block.weight_bits)
      weights.push_back(WeightFromBits(bits, format.weight_dtype));
    for (const uint32_t entries : block.entries) offsets.push_back(offsets.back() + entries);
    for (int64_t at = 0; at < static_cast<int64_t>(num_positions); at += 50) {
      sequence_ids.push_back(sequence_ids.size() * 3);
      sequence_offsets.push_back(std::min<int64_t>(at + 50, static_cast<int64_t>(num_positions)));
    }
  }
  SequenceInput view() const {
    return {input_ids, sequence_offsets, offsets, token_ids, counts, weights, sequence_ids};
  }

  RandomBlock block;
  std::vector<int64_t> input_ids, sequence_offsets{0}, offsets{0}, token_ids, counts;
  std::vector<float> weights;
  std::vector<uint64_t> sequence_ids;
};

Bytes ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteFile(const std::string& path, ByteSpan bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

const uint8_t kMetadata[] = {'{', '}'};

void WriteShard(const std::string& path, const RecordFormat& format, const Input& input) {
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(path + ".partial", MakeHeader(format), kMetadata, nullptr, &writer));
  CHECK_OK(writer->Append(input.view()));
  CHECK_OK(writer->Finish(path));
}

void CheckSame(const Input& input, const std::string& path) {
  std::unique_ptr<ShardReader> shard;
  CHECK_OK(ShardReader::Open(path, {}, CheckPayload::kYes, &shard));
  const uint64_t n = input.input_ids.size();
  CHECK_EQ(shard->footer().totals.num_positions, n);
  RecordBatch batch;
  std::vector<int32_t> tokens(n);
  CHECK_OK(shard->ReadPositions(0, n, &batch, tokens.data()));
  CHECK(std::equal(input.token_ids.begin(), input.token_ids.end(), batch.token_ids.data(),
                   batch.token_ids.end()));
  CHECK(std::equal(input.offsets.begin() + 1, input.offsets.end(), batch.offsets.data(),
                   batch.offsets.end()));
  CHECK(std::equal(input.counts.begin(), input.counts.end(), batch.counts.data(),
                   batch.counts.end()));
  CHECK(std::equal(input.weights.begin(), input.weights.end(), batch.weights.data(),
                   batch.weights.end()));
  if (shard->header().config.format.store_tokens)
    CHECK(std::equal(input.input_ids.begin(), input.input_ids.end(), tokens.begin(), tokens.end()));
}

const RecordFormat kCounts{49152, 50, ValueKind::kCounts, WeightDtype::kNone, true};

}  // namespace

TEST(shards_of_every_format_round_trip_and_verify) {
  const TemporaryDirectory directory;
  std::mt19937 random(1);
  int i = 0;
  for (const RecordFormat& format : AllFormats()) {
    const Input input(format, 230, &random);
    const std::string path = directory / ("shard" + std::to_string(i++)).c_str();
    WriteShard(path, format, input);
    CheckSame(input, path);
    VerifiedShard verified;
    CHECK_OK(VerifyShard(path, {}, {}, &verified));
    CHECK(verified.walker->sequence_ids() == input.sequence_ids);
  }
}

TEST(entries_in_any_order_and_repeated_are_sorted_and_merged) {
  const TemporaryDirectory directory;
  const RecordFormat format{100, 5, ValueKind::kCounts, WeightDtype::kNone, true};
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(directory / "p", MakeHeader(format), kMetadata, nullptr, &writer));
  const std::vector<int64_t> ids{7}, offsets{0, 5}, draws{9, 3, 9, 9, 1}, ones{1, 1, 1, 1, 1},
      sequence_offsets{0, 1};
  const std::vector<uint64_t> sequence_ids{0};
  CHECK_OK(writer->Append({ids, sequence_offsets, offsets, draws, ones, {}, sequence_ids}));
  CHECK_OK(writer->Finish(directory / "s"));
  std::unique_ptr<ShardReader> shard;
  CHECK_OK(ShardReader::Open(directory / "s", {}, CheckPayload::kYes, &shard));
  RecordBatch batch;
  CHECK_OK(shard->ReadPositions(0, 1, &batch, nullptr));
  const int32_t expected_ids[] = {1, 3, 9};
  const uint16_t expected_counts[] = {1, 1, 3};
  CHECK(std::equal(batch.token_ids.data(), batch.token_ids.end(), expected_ids, expected_ids + 3));
  CHECK(std::equal(batch.counts.data(), batch.counts.end(), expected_counts, expected_counts + 3));
}

TEST(a_refused_append_changes_nothing) {
  const TemporaryDirectory directory;
  std::mt19937 random(2);
  const Input good(kCounts, 100, &random);
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(directory / "p", MakeHeader(kCounts), kMetadata, nullptr, &writer));
  CHECK_OK(writer->Append(good.view()));
  const uint64_t before = writer->bytes_written();
  Input bad = good;
  bad.token_ids.back() = 49152;
  CHECK(writer->Append(bad.view()).code() == StatusCode::kInvalidArgument);
  bad = good;
  bad.counts.front() += 1;
  CHECK(writer->Append(bad.view()).code() == StatusCode::kInvalidArgument);
  CHECK_EQ(writer->bytes_written(), before);
  CHECK_OK(writer->Finish(directory / "s"));
  CheckSame(good, directory / "s");
}

TEST(fingerprints_of_tokens_that_are_not_at_hand_are_stored_as_given) {
  const TemporaryDirectory directory;
  std::mt19937 random(4);
  RecordFormat format = kCounts;
  const Input input(format, 100, &random);
  const std::vector<uint64_t> fingerprints{7, ~uint64_t{0}}, too_few{7};
  SequenceInput given = input.view();
  given.fingerprints = fingerprints;
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(directory / "p", MakeHeader(format), kMetadata, nullptr, &writer));
  CHECK(writer->Append(given).code() == StatusCode::kInvalidArgument);  // tokens are stored
  format.store_tokens = false;
  CHECK_OK(ShardWriter::Create(directory / "q", MakeHeader(format), kMetadata, nullptr, &writer));
  given.fingerprints = too_few;
  CHECK(writer->Append(given).code() == StatusCode::kInvalidArgument);
  given.fingerprints = fingerprints;
  CHECK_OK(writer->Append(given));
  CHECK_OK(writer->Finish(directory / "s"));
  std::unique_ptr<ShardReader> shard;
  CHECK_OK(ShardReader::Open(directory / "s", {}, CheckPayload::kYes, &shard));
  std::vector<SequenceInfo> infos(2);
  CHECK_OK(shard->ReadSequenceTable(infos.data()));
  CHECK_EQ(infos[0].fingerprint, fingerprints[0]);
  CHECK_EQ(infos[1].fingerprint, fingerprints[1]);
}

TEST(recovery_keeps_exactly_what_was_committed) {
  const TemporaryDirectory directory;
  std::mt19937 random(3);
  const Input first(kCounts, 150, &random), second(kCounts, 150, &random);
  const std::string partial = directory / "p";
  {
    std::unique_ptr<ShardWriter> writer;
    CHECK_OK(ShardWriter::Create(partial, MakeHeader(kCounts), kMetadata, nullptr, &writer));
    CHECK_OK(writer->Append(first.view()));
    CHECK_OK(writer->Commit());
    CHECK_OK(writer->Append(second.view()));  // two blocks of it reach the file, no commit does
  }
  const Bytes left = ReadFile(partial);
  RecoveredShard recovered;
  CHECK_OK(RecoverShard(partial, directory / "s", &recovered));
  CHECK(!fs::exists(partial));
  CHECK(recovered.dropped_bytes > 0);
  CheckSame(first, directory / "s");
  VerifiedShard verified;
  CHECK_OK(VerifyShard(directory / "s", {}, {}, &verified));

  // However much of the tail is lost or torn, the result is the same, or nothing where the commit
  // is gone.
  const uint64_t committed = left.size() - recovered.dropped_bytes;
  for (size_t size = 0; size <= left.size(); size += 97) {
    WriteFile(partial, ByteSpan(left).first(size));
    const std::string path = directory / "t";
    RecoveredShard again;
    CHECK_OK(RecoverShard(partial, path, &again));
    CHECK_EQ(fs::exists(path), size >= committed);
    if (fs::exists(path)) {
      CheckSame(first, path);
      fs::remove(path);
    }
  }
}

TEST(a_second_writer_of_the_same_file_is_refused) {
  const TemporaryDirectory directory;
  std::unique_ptr<ShardWriter> first, second;
  CHECK_OK(ShardWriter::Create(directory / "p", MakeHeader(kCounts), kMetadata, nullptr, &first));
  CHECK(ShardWriter::Create(directory / "p", MakeHeader(kCounts), kMetadata, nullptr, &second)
            .code() == StatusCode::kIo);
  RecoveredShard recovered;
  CHECK(RecoverShard(directory / "p", directory / "s", &recovered).code() == StatusCode::kIo);
}

TEST(every_flipped_bit_is_detected) {
  const TemporaryDirectory directory;
  std::mt19937 random(4);
  const RecordFormat format{1000, 4, ValueKind::kCounts, WeightDtype::kNone, true};
  const Input input(format, 70, &random);
  const std::string path = directory / "s";
  WriteShard(path, format, input);
  Bytes bytes = ReadFile(path);
  for (size_t i = 0; i < bytes.size(); ++i) {
    // Minor version and compatible features promise that a reader accepts any value; the header's
    // checksum covers them all the same.
    const auto bit = static_cast<uint8_t>(1u << (i % 8));
    bytes[i] ^= bit;
    WriteFile(path, bytes);
    VerifiedShard verified;
    const Status status = VerifyShard(path, {}, {}, &verified);
    if (status.ok()) sparselogits::testing::Fail(__FILE__, __LINE__, "byte " + std::to_string(i));
    CHECK(status.path() == path);
    CHECK(status.offset() >= 0 && !status.field().empty());
    bytes[i] ^= bit;
  }
}

TEST(every_prefix_is_refused) {
  const TemporaryDirectory directory;
  std::mt19937 random(5);
  const RecordFormat format{1000, 4, ValueKind::kCounts, WeightDtype::kNone, true};
  WriteShard(directory / "s", format, Input(format, 70, &random));
  const Bytes bytes = ReadFile(directory / "s");
  for (size_t size = 0; size < bytes.size(); ++size) {
    WriteFile(directory / "t", ByteSpan(bytes).first(size));
    std::unique_ptr<ShardReader> shard;
    CHECK(!ShardReader::Open(directory / "t", {}, CheckPayload::kYes, &shard).ok());
  }
}

int main() { return sparselogits::testing::RunAll(); }
