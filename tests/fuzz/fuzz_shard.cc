// A shard from nowhere: opened, read in every way, verified, walked as the remains of a writer.
// What verification accepts can be read; what is read does not depend on how; memory follows from
// the size.
#include <bit>
#include <vector>

#include "allocation_guard.h"
#include "fuzz_support.h"
#include "shard_models.h"
#include "sparselogits/shard_reader.h"
#include "sparselogits/shard_walker.h"
#include "sparselogits/verify.h"

using namespace sparselogits;
using namespace sparselogits::fuzz;

namespace {

constexpr char kPath[] = "fuzzed.slc";
constexpr uint64_t kMaxReadPositions = uint64_t{1} << 18;

// A position read as part of any range gives this.
struct Records {
  RecordBatch batch;
  std::vector<int32_t> tokens;

  Records() { batch.offsets.Append(0); }
  // Whether the positions of `part` are those from `first` on.
  bool Holds(const Records& part, uint64_t first) const {
    const size_t n = part.batch.offsets.size() - 1;
    const auto begin = static_cast<size_t>(batch.offsets[first]);
    for (size_t i = 0; i <= n; ++i)
      if (part.batch.offsets[i] != batch.offsets[first + i] - batch.offsets[first]) return false;
    for (size_t i = 0; i < part.batch.token_ids.size(); ++i) {
      if (part.batch.token_ids[i] != batch.token_ids[begin + i]) return false;
      if (part.batch.counts.size() > 0 && part.batch.counts[i] != batch.counts[begin + i])
        return false;
      if (part.batch.weights.size() > 0 && std::bit_cast<uint32_t>(part.batch.weights[i]) !=
                                               std::bit_cast<uint32_t>(batch.weights[begin + i]))
        return false;
    }
    return part.tokens.empty() || std::equal(part.tokens.begin(), part.tokens.end(),
                                             tokens.begin() + static_cast<ptrdiff_t>(first));
  }
};

Status Read(const ShardReader& reader, uint64_t first, uint64_t last, Records* records) {
  if (reader.header().config.format.store_tokens) records->tokens.resize(last - first);
  return reader.ReadPositions(first, last, &records->batch,
                              records->tokens.empty() ? nullptr : records->tokens.data());
}

// Reads a shard in every way; whether all of it could be read.
bool ReadAll(const ShardReader& reader) {
  const ShardIndexView& index = reader.index();
  const uint64_t n = reader.footer().totals.num_positions;
  // What a reader allocates by the footer's word is bounded by the blocks that are there.
  FUZZ_CHECK(n <= uint64_t{index.num_blocks()} << reader.header().block_log2);
  FUZZ_CHECK(index.num_sequences() <= reader.bytes().size() / 4);
  Bytes metadata;
  bool readable = reader.ReadMetadata(&metadata).ok();
  std::vector<SequenceInfo> sequences(index.num_sequences());
  readable &= reader.ReadSequenceTable(sequences.data()).ok();
  for (uint32_t i = 0; i < std::min(index.num_sequences(), 1000u); ++i) {
    const uint32_t frame = index.FindSequenceFrame(i);
    FUZZ_CHECK(index.sequence_frame_start(frame) <= i && i < index.sequence_frame_start(frame + 1));
  }
  if (n > kMaxReadPositions) return readable;

  Records all;
  const bool all_given = Read(reader, 0, n, &all).ok();
  // Every position of a small shard; of a large one, positions spread over it.
  const uint64_t step = n / 512 + 1;
  bool each_given = true;
  for (uint64_t p = 0; p < n; p += step) {
    Records one;
    const bool given = Read(reader, p, p + 1, &one).ok();
    each_given = each_given && given;
    if (all_given) FUZZ_CHECK(given && all.Holds(one, p));
  }
  if (step == 1) FUZZ_CHECK(all_given == each_given);
  for (uint64_t i = 1; i <= 4; ++i) {
    const uint64_t first = n * (i - 1) / 5;
    const uint64_t last = n * i / 4;
    Records range;
    const bool given = Read(reader, first, last, &range).ok();
    if (all_given) FUZZ_CHECK(given && all.Holds(range, first));
  }
  return readable && all_given;
}

// What can be read need not be sound, but what is sound can be read.
void OpenAndVerify(ByteSpan bytes, const Models& models) {
  const auto in_memory = [&] {
    return std::shared_ptr<const MappedFile>(MappedFile::FromMemory(kPath, bytes));
  };
  bool readable = false;
  for (const CheckPayload check : {CheckPayload::kYes, CheckPayload::kNo}) {
    std::unique_ptr<ShardReader> reader;
    const Status opened = ShardReader::Open(in_memory(), models, check, &reader);
    if (!opened.ok()) {
      FUZZ_CHECK(opened.path() == kPath && !opened.field().empty() && opened.offset() >= 0);
      continue;
    }
    const bool all_read = ReadAll(*reader);
    if (check == CheckPayload::kYes) readable = all_read;
  }

  VerifiedShard verified;
  const Status status = VerifyShard(in_memory(), models, {}, &verified);
  const VerifiedShard everything = FindFaults(in_memory(), models, AfterFault::kGoOn);
  FUZZ_CHECK(status.ok() == everything.faults.empty());
  if (status.ok()) {
    FUZZ_CHECK(readable || verified.reader->footer().totals.num_positions > kMaxReadPositions);
    return;
  }
  FUZZ_CHECK(status.path() == kPath && !status.field().empty() && status.offset() >= 0);
  const auto num_sequences =
      everything.reader == nullptr ? 0 : everything.reader->index().num_sequences();
  for (const ShardFault& fault : everything.faults) {
    FUZZ_CHECK(!fault.status.ok() && !fault.status.field().empty());
    FUZZ_CHECK(fault.first_sequence <= fault.last_sequence && fault.last_sequence <= num_sequences);
  }
}

// What recovery would find. What it keeps must walk without a fault.
void WalkAsPartial(ByteSpan bytes, const Models& models) {
  const auto file = MappedFile::FromMemory(kPath, bytes);
  for (const WalkDepth depth : {WalkDepth::kFrames, WalkDepth::kRecords}) {
    ShardWalker search(file->bytes(), depth, models);
    const Status stopped = search.Walk(bytes.size());
    const uint64_t end = search.committed_end();
    FUZZ_CHECK(end <= bytes.size());
    if (stopped.ok() || end == 0) continue;
    ShardWalker committed(file->bytes(), depth, models);
    FUZZ_CHECK_OK(committed.Walk(end));
    FUZZ_CHECK(committed.committed_end() == end);
    FUZZ_CHECK(committed.totals().num_sequences == committed.index().num_sequences());
  }
}

// The largest allocation that bytes of this size can ask for. An entry takes 2 bits at least (24
// times its size once it is decoded; and arrays grow by half), a position 1 bit where records may
// be empty (64 times), and LZ4 makes 255 of one.
size_t AllocationLimit(ByteSpan bytes) {
  const bool may_be_wrapped = bytes.size() > 16 && (bytes[16] & kFeatureLz4Frames) != 0;
  return (size_t{1} << 20) + bytes.size() * 128 * (may_be_wrapped ? 255 : 1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Models models;
  const Bytes bytes = WithModel({data, size}, &models);
  const AllocationGuard guard;
  OpenAndVerify(bytes, models);
  WalkAsPartial(bytes, models);
  FUZZ_CHECK(guard.largest() <= AllocationLimit(bytes));
  return 0;
}
