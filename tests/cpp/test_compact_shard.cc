// Shards with compact blocks: written with a model, refused without it, never larger than packed
// ones, and as safe.
#include <filesystem>
#include <map>

#include "compact_blocks.h"
#include "known_cache.h"
#include "sparselogits/recover.h"
#include "sparselogits/verify.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

ShardHeader CompactHeader() {
  ShardHeader header = KnownHeader(1);
  header.uuid = {7};
  header.config.codec = CodecId::kCompact;
  header.block_log2 = 6;
  return header;
}

// The records of some sequences as one block, to train on.
ModelPtr TrainOn(const KnownSequences& sequences) {
  std::mt19937 random;
  RandomBlock block(CompactHeader().config.format, 0, 0, &random);
  block.tokens.assign(sequences.input_ids.begin(), sequences.input_ids.end());
  block.token_ids.assign(sequences.token_ids.begin(), sequences.token_ids.end());
  block.counts.assign(sequences.counts.begin(), sequences.counts.end());
  for (size_t i = 0; i + 1 < sequences.offsets.size(); ++i)
    block.entries.push_back(static_cast<uint32_t>(sequences.offsets[i + 1] - sequences.offsets[i]));
  return Train(CompactHeader().config.format, block.view());
}

// Writes a shard and returns its row.
ShardRow Write(const std::string& path, const ShardHeader& header, const ModelPtr& model,
               const KnownSequences& sequences) {
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(path + ".partial", header, kNoMetadata, model, &writer));
  CHECK_OK(writer->Append(sequences.view()));
  return FinishShard(writer.get(), path);
}

// The number of blocks of each codec.
std::map<CodecId, int> CountBlocks(const std::string& path, const Models& models) {
  VerifiedShard verified;
  CHECK_OK(VerifyShard(path, models, {}, &verified));
  std::map<CodecId, int> blocks;
  const ByteSpan file = verified.file->bytes();
  for (size_t at = kHeaderLength; at + kFooterLength < file.size();) {
    const uint8_t* const frame = file.data() + at;
    if (Load32(frame) == static_cast<uint32_t>(FrameType::kBlock))
      ++blocks[static_cast<CodecId>(frame[kCodecOffset])];
    at += kFrameHeaderLength + PaddedLength(Load32(frame + 8));
  }
  return blocks;
}

struct Shard {
  Shard() : sequences(0, 20, 1), model(TrainOn(sequences)) {
    row = Write(directory / "s", CompactHeader(), model, sequences);
  }
  TemporaryDirectory directory;
  KnownSequences sequences;
  ModelPtr model;
  ShardRow row;
};

}  // namespace

TEST(what_is_written_with_a_model_is_read_with_it) {
  const Shard shard;
  const auto blocks = CountBlocks(shard.row.path, {shard.model});
  CHECK_EQ(blocks.size(), size_t{1});
  CHECK_EQ(blocks.at(CodecId::kCompact), 16);
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open({shard.row}, CompactHeader().config, {shard.model}, CheckPayload::kYes,
                             &reader));
  CheckAll(shard.sequences, *reader, 20);
  std::vector<int64_t> positions;
  for (int64_t i = 0; i < 1000; ++i) positions.push_back(i * 337 % 1000);
  CheckPositions(shard.sequences, *reader, positions);
}

TEST(a_shard_whose_model_is_missing_is_refused_by_its_name) {
  const Shard shard;
  const ModelPtr other = TrainOn(KnownSequences(50, 10, 1));
  for (const Models& models : {Models{}, Models{other}}) {
    std::unique_ptr<ShardReader> reader;
    const Status status = ShardReader::Open(shard.row.path, models, CheckPayload::kYes, &reader);
    CHECK(!status.ok());
    CHECK_EQ(status.field(), "model_digest");
    CHECK(status.message().find(ModelFileName(shard.model->digest())) != std::string::npos);
    CHECK(reader == nullptr);
    VerifiedShard verified;
    CHECK(!VerifyShard(shard.row.path, models, {}, &verified).ok());
  }
  std::unique_ptr<ShardReader> reader;
  CHECK_OK(ShardReader::Open(shard.row.path, {other, shard.model}, CheckPayload::kYes, &reader));
}

TEST(a_writer_refuses_a_model_that_cannot_code_its_records) {
  const TemporaryDirectory directory;
  std::unique_ptr<ShardWriter> writer;
  const ModelPtr model = TrainOn(KnownSequences(0, 2, 1));
  ShardHeader header = CompactHeader();
  ++header.config.format.rounds;
  CHECK(ShardWriter::Create(directory / "p", header, kNoMetadata, model, &writer).code() ==
        StatusCode::kInvalidArgument);
  header = CompactHeader();
  header.config.codec = CodecId::kPacked;
  CHECK(ShardWriter::Create(directory / "p", header, kNoMetadata, model, &writer).code() ==
        StatusCode::kInvalidArgument);
  CHECK(!std::filesystem::exists((directory / "p").c_str()));
}

TEST(without_a_model_blocks_are_packed_and_nothing_is_needed) {
  const TemporaryDirectory directory;
  const KnownSequences sequences(0, 20, 1);
  const ShardRow row = Write(directory / "s", CompactHeader(), nullptr, sequences);
  CHECK_EQ(CountBlocks(row.path, {}).count(CodecId::kCompact), size_t{0});
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open({row}, CompactHeader().config, {}, CheckPayload::kYes, &reader));
  CheckAll(sequences, *reader, 20);
}

// A model of other data makes some blocks larger; those are packed.
TEST(a_shard_is_never_larger_than_a_packed_one) {
  const TemporaryDirectory directory;
  const KnownSequences sequences(0, 40, 1);
  ShardHeader packed = CompactHeader();
  packed.config.codec = CodecId::kPacked;
  const ShardRow as_packed = Write(directory / "p", packed, nullptr, sequences);
  const ShardRow good = Write(directory / "g", CompactHeader(), TrainOn(sequences), sequences);
  CHECK(good.file_length < as_packed.file_length);

  std::mt19937 random(1);
  RecordFormat narrow = CompactHeader().config.format;
  narrow.vocab_size = 3;
  const RandomBlock others(narrow, 2000, 95, &random);
  const ModelPtr bad = Train(CompactHeader().config.format, others.view());
  const ShardRow with_bad = Write(directory / "b", CompactHeader(), bad, sequences);
  CHECK(with_bad.file_length <= as_packed.file_length);
  CHECK(CountBlocks(with_bad.path, {bad})[CodecId::kPacked] > 0);
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(
      CacheReader::Open({with_bad}, CompactHeader().config, {bad}, CheckPayload::kYes, &reader));
  CheckAll(sequences, *reader, 40);
}

TEST(recovery_needs_no_model) {
  const TemporaryDirectory directory;
  const KnownSequences sequences(0, 20, 1);
  const ModelPtr model = TrainOn(sequences);
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(directory / "p", CompactHeader(), kNoMetadata, model, &writer));
  CHECK_OK(writer->Append(sequences.view()));
  CHECK_OK(writer->Commit());
  const KnownSequences more(20, 3, 1);
  CHECK_OK(writer->Append(more.view()));
  const Uuid uuid = writer->uuid();
  writer.reset();
  RecoveredShard recovered;
  CHECK_OK(RecoverShard(directory / "p", directory / "s", &recovered));
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open({{directory / "s", uuid, recovered.file_length, recovered.totals}},
                             CompactHeader().config, {model}, CheckPayload::kYes, &reader));
  CheckAll(sequences, *reader, 20);
}

// Its sequences are told, and all others can be read.
TEST(a_damaged_block_damages_only_itself) {
  const Shard shard;
  std::unique_ptr<ShardReader> whole;
  CHECK_OK(ShardReader::Open(shard.row.path, {shard.model}, CheckPayload::kYes, &whole));
  Bytes bytes(whole->bytes().begin(), whole->bytes().end());
  size_t at = kHeaderLength;
  while (Load32(bytes.data() + at) != static_cast<uint32_t>(FrameType::kBlock))
    at += kFrameHeaderLength + PaddedLength(Load32(bytes.data() + at + 8));
  bytes[at + kFrameHeaderLength + 40] ^= 4;
  const auto file = [&] {
    return std::shared_ptr<const MappedFile>(MappedFile::FromMemory("damaged", bytes));
  };
  std::unique_ptr<ShardReader> reader;
  CHECK_OK(ShardReader::Open(file(), {shard.model}, CheckPayload::kYes, &reader));
  RecordBatch batch;
  CHECK(!reader->ReadPositions(0, 64, &batch, nullptr).ok());
  RecordBatch others;
  CHECK_OK(reader->ReadPositions(64, 1000, &others, nullptr));
  const VerifiedShard verified = FindFaults(file(), {shard.model}, AfterFault::kGoOn);
  CHECK_EQ(verified.faults.size(), size_t{1});
  CHECK_EQ(verified.faults[0].first_sequence, 0u);
  CHECK_EQ(verified.faults[0].last_sequence, 2u);
}

int main() { return sparselogits::testing::RunAll(); }
