// What is appended comes back identical from a finished shard; what was committed comes back from a
// file that was cut anywhere, and nothing else does.
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sequence_script.h"
#include "sparselogits/recover.h"
#include "sparselogits/shard_writer.h"
#include "sparselogits/verify.h"
#include "sparselogits/xxh64.h"

using namespace sparselogits;
using namespace sparselogits::fuzz;

namespace {

namespace fs = std::filesystem;

// A directory of this process, in memory where the machine has such a place; removed at its end.
class Scratch {
 public:
  Scratch() {
    const fs::path memory = "/dev/shm";
    std::string name =
        ((fs::is_directory(memory) ? memory : fs::temp_directory_path()) / "fuzz-XXXXXX").string();
    FUZZ_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Scratch() { fs::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }
  void Clear() const {
    for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry);
  }

 private:
  fs::path path_;
};

using Sequences = std::vector<ScriptSequence>;

// How much of a partial file a commit makes safe, and what it holds.
struct Committed {
  uint64_t end = 0;
  size_t num_sequences = 0;
};

void CheckSequence(const ShardReader& reader, uint32_t i, const SequenceInfo& info,
                   const ScriptSequence& expected) {
  const ShardIndexView& index = reader.index();
  const uint64_t first = index.sequence_start(i);
  const size_t n = expected.records.size();
  FUZZ_CHECK(index.sequence_start(i + 1) - first == n);
  FUZZ_CHECK(info.sequence_id == expected.sequence_id);
  const std::vector<uint32_t> input_ids(expected.input_ids.begin(), expected.input_ids.end());
  FUZZ_CHECK(info.fingerprint == FingerprintTokens(input_ids));
  RecordBatch batch;
  batch.offsets.Append(0);
  std::vector<int32_t> tokens(n + 1);
  FUZZ_CHECK_OK(reader.ReadPositions(first, first + n, &batch, tokens.data()));
  const RecordFormat& format = reader.header().config.format;
  if (format.store_tokens)
    FUZZ_CHECK(std::equal(input_ids.begin(), input_ids.end(), tokens.begin(),
                          [](uint32_t a, int32_t b) { return a == static_cast<uint32_t>(b); }));
  size_t at = 0;
  for (size_t p = 0; p < n; ++p) {
    FUZZ_CHECK(batch.offsets[p + 1] - batch.offsets[p] ==
               static_cast<int64_t>(expected.records[p].size()));
    for (const auto& [id, value] : expected.records[p]) {
      FUZZ_CHECK(static_cast<uint32_t>(batch.token_ids[at]) == id);
      FUZZ_CHECK((format.value_kind == ValueKind::kCounts
                      ? batch.counts[at]
                      : std::bit_cast<uint32_t>(batch.weights[at])) == value);
      ++at;
    }
  }
}

// The shard is sound and holds the first sequences, and no more.
void CheckShard(const std::string& path, const Models& models, const Sequences& sequences,
                size_t num_sequences, ByteSpan metadata) {
  VerifiedShard verified;
  FUZZ_CHECK_OK(VerifyShard(path, models, {}, &verified));
  const ShardReader& reader = *verified.reader;
  FUZZ_CHECK(reader.index().num_sequences() == num_sequences);
  Bytes found;
  FUZZ_CHECK_OK(reader.ReadMetadata(&found));
  FUZZ_CHECK(std::equal(found.begin(), found.end(), metadata.begin(), metadata.end()));
  std::vector<SequenceInfo> table(num_sequences);
  FUZZ_CHECK_OK(reader.ReadSequenceTable(table.data()));
  for (uint32_t i = 0; i < num_sequences; ++i) CheckSequence(reader, i, table[i], sequences[i]);
}

// A sequence with one value outside its limits: refused, and nothing of it is kept.
void AppendInvalid(const RecordFormat& format, uint8_t how, ScriptSequence sequence,
                   ShardWriter* writer) {
  const Totals before = writer->totals();
  sequence.input_ids.push_back(0);
  sequence.token_ids.push_back(0);
  if (format.value_kind == ValueKind::kCounts)
    sequence.counts.push_back(format.rounds);
  else
    sequence.weights.push_back(1.0f);
  sequence.offsets.push_back(static_cast<int64_t>(sequence.token_ids.size()));
  switch (how % 4) {
    case 0: sequence.input_ids.back() = format.vocab_size; break;
    case 1: sequence.token_ids.back() = -1; break;
    case 2:
      if (format.value_kind == ValueKind::kCounts)
        ++sequence.counts.back();
      else
        sequence.weights.back() = -1.0f;
      break;
    default: sequence.offsets.back() += 1; break;
  }
  const std::vector<int64_t> bounds = {0, static_cast<int64_t>(sequence.input_ids.size())};
  FUZZ_CHECK(writer->Append(sequence.input(bounds)).code() == StatusCode::kInvalidArgument);
  FUZZ_CHECK(writer->totals() == before);
}

// Does what the input says until it is used up.
std::vector<Committed> Play(Input* input, ShardWriter* writer, const RecordFormat& format,
                            Sequences* sequences) {
  std::vector<Committed> commits = {{}};
  while (!input->empty()) {
    const uint8_t action = input->Byte();
    if (action < 64) {
      FUZZ_CHECK_OK(writer->Commit());
      commits.push_back({writer->bytes_written(), sequences->size()});
      continue;
    }
    ScriptSequence sequence = TakeSequence(format, sequences->size() * 0x9E3779B97F4A7C15u, input);
    if (action < 80) {
      AppendInvalid(format, action, sequence, writer);
      continue;
    }
    const std::vector<int64_t> bounds = {0, static_cast<int64_t>(sequence.input_ids.size())};
    FUZZ_CHECK_OK(writer->Append(sequence.input(bounds)));
    sequences->push_back(std::move(sequence));
  }
  return commits;
}

// Writes the first `length` bytes of the partial file, and `torn` after them, as another partial
// file. Returns how many bytes of the two are the same: what was torn may by chance be what had
// been there.
uint64_t CopyCut(const std::string& from, const std::string& to, uint64_t length, ByteSpan torn) {
  std::ifstream in(from, std::ios::binary);
  const Bytes all((std::istreambuf_iterator<char>(in)), {});
  FUZZ_CHECK(length <= all.size());
  Bytes bytes(all.begin(), all.begin() + static_cast<ptrdiff_t>(length));
  bytes.insert(bytes.end(), torn.begin(), torn.end());
  std::ofstream out(to, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  FUZZ_CHECK(out.good());
  const auto differs = std::mismatch(all.begin(), all.end(), bytes.begin(), bytes.end());
  return static_cast<uint64_t>(differs.first - all.begin());
}

// A machine that died with `cut` bytes of the file on its disk, and perhaps rubbish behind them.
void CheckRecovery(const Scratch& scratch, const std::string& partial, uint64_t cut, ByteSpan torn,
                   const Models& models, const std::vector<Committed>& commits,
                   const Sequences& sequences, ByteSpan metadata) {
  const std::string left = scratch / "left.slc.partial";
  const std::string path = scratch / "left.slc";
  const uint64_t intact = CopyCut(partial, left, cut, torn);
  Committed safe;
  for (const Committed& commit : commits)
    if (commit.end <= intact) safe = commit;
  RecoveredShard recovered;
  const Status status = RecoverShard(left, path, &recovered);
  if (intact < kHeaderLength && !status.ok()) return;  // rubbish in the place of a header
  FUZZ_CHECK_OK(status);
  FUZZ_CHECK(!fs::exists(left));
  if (safe.num_sequences == 0) {
    FUZZ_CHECK(recovered.file_length == 0 && !fs::exists(path));
    return;
  }
  FUZZ_CHECK(recovered.totals.num_sequences == safe.num_sequences);
  FUZZ_CHECK(recovered.file_length == fs::file_size(path));
  CheckShard(path, models, sequences, safe.num_sequences, metadata);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Scratch scratch;
  scratch.Clear();
  Input input({data, size});
  const auto cut_at = static_cast<uint32_t>(input.Number(2));
  const uint8_t torn_length = input.Byte();
  ModelPtr model;
  const ShardHeader header = TakeHeader(&input, &model);
  const Models models = model == nullptr ? Models{} : Models{model};
  const ByteSpan torn = input.rest().first(std::min<size_t>(torn_length, input.rest().size()));
  const uint8_t metadata[] = {'{', '}'};

  const std::string partial = scratch / "s.slc.partial";
  std::unique_ptr<ShardWriter> writer;
  FUZZ_CHECK_OK(ShardWriter::Create(partial, header, metadata, model, &writer));
  Sequences sequences;
  const std::vector<Committed> commits =
      Play(&input, writer.get(), header.config.format, &sequences);
  const uint64_t cut = cut_at % (writer->bytes_written() + 1);
  CheckRecovery(scratch, partial, cut, torn, models, commits, sequences, metadata);

  const std::string path = scratch / "s.slc";
  FUZZ_CHECK_OK(writer->Finish(path));
  CheckShard(path, models, sequences, sequences.size(), metadata);
  return 0;
}
