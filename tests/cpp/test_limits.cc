// What a writer does at the limits of a shard, so that no reader ever refuses what it wrote.
#include <limits>

#include "check.h"
#include "sparselogits/shard_writer.h"
#include "sparselogits/verify.h"
#include "temporary_directory.h"

using namespace sparselogits;
using sparselogits::testing::TemporaryDirectory;

namespace {

const uint8_t kMetadata[] = {'{', '}'};

std::unique_ptr<ShardWriter> NewWriter(const std::string& path) {
  ShardHeader header;
  header.config.format = {100, 5, ValueKind::kCounts, WeightDtype::kNone, true};
  header.config.sampler = "multinomial";
  header.block_log2 = 6;
  std::unique_ptr<ShardWriter> writer;
  CHECK_OK(ShardWriter::Create(path, header, kMetadata, nullptr, &writer));
  return writer;
}

// Sequences of no positions, with the ids 0 ... count - 1.
struct EmptySequences {
  explicit EmptySequences(size_t count) : sequence_ids(count), sequence_offsets(count + 1, 0) {
    for (size_t i = 0; i < count; ++i) sequence_ids[i] = i;
  }
  SequenceInput view() const {
    return {{}, sequence_offsets, std::span(sequence_offsets).first(1), {}, {}, {}, sequence_ids};
  }

  std::vector<uint64_t> sequence_ids;
  std::vector<int64_t> sequence_offsets;
};

}  // namespace

TEST(a_commit_of_many_sequences_writes_several_frames) {
  const TemporaryDirectory directory;
  const EmptySequences sequences(kMaxSequencesPerFrame + 3);
  const std::unique_ptr<ShardWriter> writer = NewWriter(directory / "p");
  CHECK_OK(writer->Append(sequences.view()));
  CHECK_OK(writer->Finish(directory / "s"));
  VerifiedShard verified;
  CHECK_OK(VerifyShard(directory / "s", {}, {}, &verified));
  CHECK_EQ(verified.reader->index().num_sequence_frames(), 2u);
  CHECK_EQ(verified.reader->index().sequence_frame_start(1), kMaxSequencesPerFrame);
  CHECK(verified.walker->sequence_ids() == sequences.sequence_ids);
}

TEST(a_shard_has_room_up_to_its_limits_and_for_its_index) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  const TemporaryDirectory directory;
  const std::unique_ptr<ShardWriter> writer = NewWriter(directory / "p");
  CHECK_OK(writer->Append(EmptySequences(1).view()));
  CHECK(writer->HasRoom(kMaxPositionsPerShard, 0, 0));
  CHECK(!writer->HasRoom(kMaxPositionsPerShard + 1, 0, 0));
  CHECK(writer->HasRoom(0, 0, kMaxEntriesPerShard));
  CHECK(!writer->HasRoom(0, 0, kMaxEntriesPerShard + 1));
  // The index gives 4 bytes to each sequence, and may have 2^30: there it ends before 2^28.
  CHECK(writer->HasRoom(0, kMaxSequencesPerShard - (1 << 10), 0));
  CHECK(!writer->HasRoom(0, kMaxSequencesPerShard - 1, 0));
  CHECK(!writer->HasRoom(0, kMaxSequencesPerShard, 0));
  CHECK(!writer->HasRoom(kHuge, 0, 0) && !writer->HasRoom(0, kHuge, 0) &&
        !writer->HasRoom(0, 0, kHuge));
}

TEST(the_length_of_an_index_is_known_before_it_is_encoded) {
  ShardIndex index;
  CHECK_EQ(index.EncodedLength(), index.Encode().size());
  index.AddBlock(128, 64);
  index.AddBlock(256, 6);
  index.AddSequence(40);
  index.AddSequence(30);
  index.AddSequence(0);
  index.AddSequenceFrame(512, 0);
  CHECK_EQ(index.EncodedLength(), index.Encode().size());
}

int main() { return sparselogits::testing::RunAll(); }
