// What must be the same bits on every machine: decoded golden shards, written shards, draws.
//
//   portable_bits EXPECTED            compares with the kept lines; exit status 1 where one differs
//   portable_bits EXPECTED --update   writes them
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "golden_models.h"
#include "plain_lz4.h"
#include "sparselogits/cache_reader.h"
#include "sparselogits/sampler.h"
#include "sparselogits/shard_writer.h"
#include "sparselogits/xxh64.h"
#include "temporary_directory.h"

using namespace sparselogits;
using sparselogits::testing::TemporaryDirectory;
namespace fs = std::filesystem;

namespace {

// The hash of arrays as they lie in a file: little-endian, one after the other.
class BitHash {
 public:
  template <typename T>
  void Add(std::span<const T> values) {
    for (const T value : values) {
      if constexpr (std::is_floating_point_v<T>)
        AppendLittle<uint32_t>(&bytes_, std::bit_cast<uint32_t>(value));
      else
        AppendLittle<T>(&bytes_, value);
    }
  }
  std::string Hex() const {
    char text[17];
    std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(Xxh64(bytes_)));
    return text;
  }

 private:
  Bytes bytes_;
};

struct Content {
  RecordBatch records;
  std::vector<int32_t> tokens;
  std::vector<SequenceInfo> sequences;
};

Content Decode(const ShardReader& shard) {
  Content content;
  const uint64_t positions = shard.footer().totals.num_positions;
  content.tokens.resize(shard.header().config.format.store_tokens ? positions : 0);
  content.records.offsets.Append(0);
  CHECK_OK(shard.ReadPositions(0, positions, &content.records,
                               content.tokens.empty() ? nullptr : content.tokens.data()));
  content.sequences.resize(shard.footer().totals.num_sequences);
  CHECK_OK(shard.ReadSequenceTable(content.sequences.data()));
  return content;
}

std::string HashOfContent(const Content& content) {
  BitHash hash;
  hash.Add(content.records.offsets.span());
  hash.Add(content.records.token_ids.span());
  hash.Add(content.records.counts.span());
  hash.Add(content.records.weights.span());
  hash.Add(std::span<const int32_t>(content.tokens));
  for (const SequenceInfo& info : content.sequences)
    hash.Add<uint64_t>(std::vector{info.sequence_id, info.fingerprint});
  return hash.Hex();
}

// The same content, written again: one commit, nothing wrapped.
std::string HashOfWritten(const ShardReader& shard, const Content& content, const ModelPtr& model) {
  std::vector<int64_t> input_ids(shard.footer().totals.num_positions, 0);
  std::copy(content.tokens.begin(), content.tokens.end(), input_ids.begin());
  std::vector<int64_t> sequence_offsets = {0};
  std::vector<uint64_t> sequence_ids, fingerprints;
  for (uint32_t i = 0; i < shard.index().num_sequences(); ++i) {
    sequence_offsets.push_back(static_cast<int64_t>(shard.index().sequence_start(i + 1)));
    sequence_ids.push_back(content.sequences[i].sequence_id);
    fingerprints.push_back(content.sequences[i].fingerprint);
  }
  const RecordBatch& records = content.records;
  const std::vector<int64_t> token_ids(records.token_ids.span().begin(),
                                       records.token_ids.span().end());
  const std::vector<int64_t> counts(records.counts.span().begin(), records.counts.span().end());
  SequenceInput input{input_ids,   sequence_offsets, records.offsets.span(),
                      token_ids,   counts,           records.weights.span(),
                      sequence_ids};
  if (!shard.header().config.format.store_tokens) input.fingerprints = fingerprints;
  ShardHeader header = shard.header();
  header.incompatible_features = 0;
  const TemporaryDirectory directory;
  std::unique_ptr<ShardWriter> writer;
  const uint8_t metadata[] = {'{', '}'};
  CHECK_OK(ShardWriter::Create(directory / "partial", header, metadata, model, &writer));
  CHECK_OK(writer->Append(input));
  CHECK_OK(writer->Finish(directory / "shard"));
  std::unique_ptr<MappedFile> file;
  CHECK_OK(MappedFile::Open(directory / "shard", &file));
  BitHash hash;
  hash.Add(file->bytes());
  return hash.Hex();
}

void AddShards(const fs::path& golden, std::vector<std::string>* lines) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(golden / "valid"))
    if (entry.path().extension() == ".slc") paths.push_back(entry.path());
  const Models models = sparselogits::testing::GoldenModels(golden / "valid");
  for (const fs::path& path : paths) {
    std::unique_ptr<ShardReader> shard;
    CHECK_OK(ShardReader::Open(path.string(), models, CheckPayload::kYes, &shard));
    ModelPtr model;
    for (const ModelPtr& one : models)
      if (one->digest() == shard->header().model_digest) model = one;
    const Content content = Decode(*shard);
    lines->push_back("shard " + fs::relative(path, golden / "valid").generic_string() +
                     " decoded " + HashOfContent(content) + " written " +
                     HashOfWritten(*shard, content, model));
  }
}

void AddDraws(std::vector<std::string>* lines) {
  constexpr int64_t kRows = 7;
  constexpr int64_t kColumns = 3001;
  std::mt19937 random(1);
  std::vector<float> logits(kRows * kColumns);
  for (float& logit : logits) {  // sums of words: the same on every standard library
    int64_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += static_cast<int64_t>(random() >> 8) - (1 << 23);
    logit = 4 * static_cast<float>(sum) / (1 << 23);
  }
  std::vector<PositionKey> keys;
  for (uint64_t i = 0; i < kRows; ++i) keys.push_back({i << 40 | 5, i << 33});
  const std::pair<const char*, SamplerKind> samplers[] = {
      {"multinomial", SamplerKind::kMultinomial},
      {"systematic", SamplerKind::kSystematic},
      {"stratified", SamplerKind::kStratified}};
  for (const auto& [name, sampler] : samplers)
    for (const float temperature : {1.0f, 0.7f})
      for (const float proposal : {1.0f, 0.5f}) {
        SampleOptions options;
        options.rounds = 50;
        options.sampler = sampler;
        options.temperature = temperature;
        options.proposal_temperature = proposal;
        options.seed = 0x0123456789ABCDEFu;
        Draws draws;
        CHECK_OK(Sample({logits.data(), LogitDtype::kFloat32, kRows, kColumns, kColumns},
                        keys.data(), options, &draws));
        BitHash hash;
        hash.Add(std::span<const int64_t>(draws.offsets));
        hash.Add(std::span<const int32_t>(draws.token_ids));
        hash.Add(std::span<const uint16_t>(draws.counts));
        hash.Add(std::span<const float>(draws.weights));
        lines->push_back("draws " + std::string(name) + " temperature " +
                         (temperature == 1.0f ? "1" : "0.7") + " proposal " +
                         (proposal == 1.0f ? "1 " : "0.5 ") + hash.Hex());
      }
}

std::vector<std::string> ReadLines(const char* path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

int Compare(const std::vector<std::string>& found, const std::vector<std::string>& expected) {
  std::vector<std::string> different;
  std::set_symmetric_difference(found.begin(), found.end(), expected.begin(), expected.end(),
                                std::back_inserter(different));
  for (const std::string& line : different)
    std::printf("%s %s\n",
                std::binary_search(found.begin(), found.end(), line) ? "found   " : "expected",
                line.c_str());
  std::printf("%zu lines, %zu differ\n", found.size(), different.size());
  return different.empty() && !found.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && !(argc == 3 && std::string(argv[2]) == "--update")) {
    std::fprintf(stderr, "usage: portable_bits EXPECTED [--update]\n");
    return 2;
  }
  sparselogits::testing::UseAnyLz4();
  try {
    std::vector<std::string> lines;
    AddShards(GOLDEN_DIRECTORY, &lines);
    AddDraws(&lines);
    std::sort(lines.begin(), lines.end());
    if (argc == 2) return Compare(lines, ReadLines(argv[1]));
    std::ofstream file(argv[1]);
    for (const std::string& line : lines) file << line << '\n';
    return file.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::printf("FAIL %s\n", error.what());
    return 1;
  }
}
