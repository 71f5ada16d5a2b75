// Decodes a shard, or encodes its records into a new one, again and again: for counting
// instructions.
//
//   shard_loop decode|encode SHARD REPEATS [MODEL]
//
// MODEL is the file of the model that the shard names, if it names one. Encoding writes
// SHARD.scratch, which must not exist, and removes it.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "sparselogits/compact_model.h"
#include "sparselogits/shard_reader.h"
#include "sparselogits/shard_writer.h"

using namespace sparselogits;

namespace {

void Check(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "shard_loop: %s: %s\n", status.path().c_str(), status.message().c_str());
  std::exit(1);
}

ModelPtr ReadModel(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(file), {}};
  ModelPtr model;
  Check(CompactModel::Parse(bytes, &model).In(path));
  return model;
}

struct Decoded {
  RecordBatch records;
  std::vector<int32_t> tokens;
};

Decoded Decode(const ShardReader& shard) {
  const Totals& totals = shard.footer().totals;
  Decoded out;
  out.records.offsets.Reserve(totals.num_positions + 1);
  out.records.offsets.Append(0);
  out.records.token_ids.Reserve(totals.num_entries);
  if (shard.header().config.format.value_kind == ValueKind::kCounts)
    out.records.counts.Reserve(totals.num_entries);
  else
    out.records.weights.Reserve(totals.num_entries);
  out.tokens.resize(totals.num_positions);
  Check(shard.ReadPositions(0, totals.num_positions, &out.records, out.tokens.data()));
  return out;
}

template <typename T>
std::vector<int64_t> Widened(const T& values) {
  return {values.data(), values.data() + values.size()};
}

// The decoded shard as a caller would append it, in one call.
class Input {
 public:
  Input(const ShardReader& shard, const Decoded& decoded)
      : tokens_(Widened(decoded.tokens)),
        token_ids_(Widened(decoded.records.token_ids)),
        counts_(Widened(decoded.records.counts)),
        offsets_(Widened(decoded.records.offsets)),
        records_(decoded.records) {
    const auto num_sequences = static_cast<uint32_t>(shard.footer().totals.num_sequences);
    for (uint32_t i = 0; i <= num_sequences; ++i)
      sequence_offsets_.push_back(shard.index().sequence_start(i));
    for (uint32_t i = 0; i < num_sequences; ++i) sequence_ids_.push_back(i);
  }
  SequenceInput view() const {
    return {tokens_, sequence_offsets_,       offsets_,     token_ids_,
            counts_, records_.weights.span(), sequence_ids_};
  }

 private:
  std::vector<int64_t> tokens_, token_ids_, counts_, offsets_, sequence_offsets_;
  std::vector<uint64_t> sequence_ids_;
  const RecordBatch& records_;
};

void Encode(const ShardReader& shard, const Input& input, ModelPtr model) {
  const std::string path = shard.path() + ".scratch";
  const uint8_t metadata[] = {'{', '}'};
  std::unique_ptr<ShardWriter> writer;
  Check(ShardWriter::Create(path, shard.header(), metadata, std::move(model), &writer));
  Check(writer->Append(input.view()));
  Check(writer->Commit());
  writer.reset();
  static_cast<void>(std::remove(path.c_str()));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string direction = argc > 1 ? argv[1] : "";
  if ((argc != 4 && argc != 5) || (direction != "decode" && direction != "encode")) {
    std::fprintf(stderr, "usage: shard_loop decode|encode SHARD REPEATS [MODEL]\n");
    return 2;
  }
  Models models;
  if (argc == 5) models.push_back(ReadModel(argv[4]));
  std::unique_ptr<ShardReader> shard;
  Check(ShardReader::Open(argv[2], models, CheckPayload::kYes, &shard));
  const int repeats = std::atoi(argv[3]);
  if (direction == "encode") {
    const Decoded decoded = Decode(*shard);
    const Input input(*shard, decoded);
    const ModelPtr model = models.empty() ? nullptr : models.front();
    for (int i = 0; i < repeats; ++i) Encode(*shard, input, model);
  } else {
    for (int i = 0; i < repeats; ++i) static_cast<void>(Decode(*shard));
  }
  return 0;
}
