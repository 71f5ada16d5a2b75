// Damage of every kind to every golden shard: it is refused with file, place and field, or what is
// read is what was written.
#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "golden_models.h"
#include "sparselogits/lz4_block.h"
#include "sparselogits/verify.h"

using namespace sparselogits;
namespace fs = std::filesystem;

namespace {

const Models& AllModels() {
  static const Models models =
      sparselogits::testing::GoldenModels(fs::path(GOLDEN_DIRECTORY) / "valid");
  return models;
}

struct Golden {
  std::string name;
  Bytes bytes;
};

const std::vector<Golden>& ValidShards() {
  static const std::vector<Golden> shards = [] {
    std::vector<Golden> all;
    for (const auto& entry : fs::directory_iterator(fs::path(GOLDEN_DIRECTORY) / "valid")) {
      if (entry.path().extension() != ".slc") continue;
      std::ifstream file(entry.path(), std::ios::binary);
      all.push_back({entry.path().filename(), {std::istreambuf_iterator<char>(file), {}}});
      VerifiedShard verified;
      if (!VerifyShard(entry.path(), AllModels(), {}, &verified).ok())
        all.pop_back();  // LZ4, without liblz4
    }
    return all;
  }();
  CHECK(shards.size() > 20);
  return shards;
}

// All that a reader gets out of a shard.
struct Content {
  std::vector<int64_t> offsets;
  std::vector<int32_t> token_ids, tokens;
  std::vector<uint16_t> counts;
  std::vector<float> weights;
  std::vector<uint64_t> sequences;  // id, fingerprint, start of each
  Bytes metadata;
  ShardConfig config;

  bool operator==(const Content&) const = default;
};

// Reads it without the deep check, as training does.
Status Read(std::shared_ptr<const MappedFile> file, Content* content) {
  std::unique_ptr<ShardReader> shard;
  SPARSELOGITS_RETURN_IF_ERROR(
      ShardReader::Open(std::move(file), AllModels(), CheckPayload::kYes, &shard));
  const Totals& totals = shard->footer().totals;
  RecordBatch batch;
  content->tokens.resize(totals.num_positions);
  SPARSELOGITS_RETURN_IF_ERROR(
      shard->ReadPositions(0, totals.num_positions, &batch, content->tokens.data()));
  std::vector<SequenceInfo> infos(totals.num_sequences);
  SPARSELOGITS_RETURN_IF_ERROR(shard->ReadSequenceTable(infos.data()));
  SPARSELOGITS_RETURN_IF_ERROR(shard->ReadMetadata(&content->metadata));
  content->offsets.assign(batch.offsets.data(), batch.offsets.end());
  content->token_ids.assign(batch.token_ids.data(), batch.token_ids.end());
  content->counts.assign(batch.counts.data(), batch.counts.end());
  content->weights.assign(batch.weights.data(), batch.weights.end());
  for (uint32_t i = 0; i < infos.size(); ++i)
    for (const uint64_t value :
         {infos[i].sequence_id, infos[i].fingerprint, shard->index().sequence_start(i)})
      content->sequences.push_back(value);
  content->config = shard->header().config;
  return Status::Ok();
}

void CheckNamesThePlace(const Status& status, size_t file_size, const std::string& what) {
  if (status.code() == StatusCode::kInvalidArgument || status.code() == StatusCode::kIo ||
      status.path() != "damaged.slc" || status.offset() < 0 ||
      static_cast<size_t>(status.offset()) > file_size || status.field().empty())
    sparselogits::testing::Fail(__FILE__, __LINE__,
                                what + ": " + status.path() + " byte " +
                                    std::to_string(status.offset()) + " field " + status.field() +
                                    ": " + status.message());
}

// The deep check must refuse `bytes`; a plain read must refuse them or give `content`.
void CheckDetected(ByteSpan bytes, const Content& content, const std::string& what) {
  const std::shared_ptr<const MappedFile> file = MappedFile::FromMemory("damaged.slc", bytes);
  VerifiedShard verified;
  const Status deep = VerifyShard(file, AllModels(), {}, &verified);
  if (deep.ok()) sparselogits::testing::Fail(__FILE__, __LINE__, what + " is not detected");
  CheckNamesThePlace(deep, bytes.size(), what);
  Content read;
  const Status status = Read(file, &read);
  if (!status.ok())
    CheckNamesThePlace(status, bytes.size(), what);
  else if (!(read == content))
    sparselogits::testing::Fail(__FILE__, __LINE__, what + " changes what is read, silently");
  // Looking for more faults ends, and finds at least this one.
  CHECK(!FindFaults(file, AllModels(), AfterFault::kGoOn).faults.empty());
}

Content ContentOf(const Golden& shard) {
  Content content;
  CHECK_OK(Read(MappedFile::FromMemory(shard.name, shard.bytes), &content));
  return content;
}

// Where the frames of a shard start, and where its footer does.
std::vector<size_t> FrameOffsets(const Golden& shard) {
  ShardHeader header;
  CHECK_OK(DecodeHeader(shard.bytes, &header));
  std::vector<size_t> offsets;
  const size_t end = shard.bytes.size() - kFooterLength;
  FrameHeader frame;
  for (size_t at = kHeaderLength; at < end; at += frame.frame_length()) {
    CHECK_EQ(FindFrame(shard.bytes, end, header, at, &frame), at);
    offsets.push_back(at);
  }
  offsets.push_back(end);
  return offsets;
}

Bytes Join(std::initializer_list<ByteSpan> parts) {
  Bytes joined;
  for (const ByteSpan part : parts) joined.insert(joined.end(), part.begin(), part.end());
  return joined;
}

}  // namespace

TEST(every_flipped_bit_is_detected) {
  for (const Golden& shard : ValidShards()) {
    const Content content = ContentOf(shard);
    Bytes bytes = shard.bytes;
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      const auto flip = static_cast<uint8_t>(1u << (bit % 8));
      bytes[bit / 8] ^= flip;
      CheckDetected(bytes, content, shard.name + ": bit " + std::to_string(bit));
      bytes[bit / 8] ^= flip;
    }
  }
}

TEST(every_cut_and_every_added_byte_is_detected) {
  for (const Golden& shard : ValidShards()) {
    const Content content = ContentOf(shard);
    for (size_t size = 0; size < shard.bytes.size(); ++size)
      CheckDetected(ByteSpan(shard.bytes).first(size), content,
                    shard.name + ": cut to " + std::to_string(size));
    Bytes longer = shard.bytes;
    for (const int added : {0, 0, 0, 0, 0, 0, 0, 0, 0x53}) {
      longer.push_back(static_cast<uint8_t>(added));
      CheckDetected(longer, content, shard.name + ": longer");
    }
  }
}

TEST(frames_that_are_missing_repeated_or_out_of_order_are_detected) {
  for (const Golden& shard : ValidShards()) {
    const Content content = ContentOf(shard);
    const std::vector<size_t> at = FrameOffsets(shard);
    const ByteSpan all = shard.bytes;
    const auto part = [&](size_t from, size_t to) { return all.subspan(from, to - from); };
    for (size_t i = 0; i + 1 < at.size(); ++i) {
      const std::string what = shard.name + ": frame " + std::to_string(i);
      const ByteSpan frame = part(at[i], at[i + 1]);
      const ByteSpan rest = all.subspan(at[i + 1]);
      CheckDetected(Join({all.first(at[i]), rest}), content, what + " removed");
      for (size_t j = i + 1; j < at.size(); ++j) {
        const Bytes copied = Join({all.first(at[j]), frame, all.subspan(at[j])});
        CheckDetected(copied, content, what + " copied");
        if (j + 1 == at.size()) continue;
        const ByteSpan other = part(at[j], at[j + 1]);
        const Bytes exchanged =
            Join({all.first(at[i]), other, part(at[i + 1], at[j]), frame, all.subspan(at[j + 1])});
        if (exchanged != shard.bytes) CheckDetected(exchanged, content, what + " exchanged");
        if (frame.size() != other.size() || std::equal(frame.begin(), frame.end(), other.begin()))
          continue;
        // Written over another one of the same length: no offset in the file moves.
        CheckDetected(Join({all.first(at[j]), frame, all.subspan(at[j + 1])}), content,
                      what + " over another");
      }
    }
  }
}

TEST(parts_of_another_shard_are_detected) {
  for (const Golden& shard : ValidShards()) {
    const Content content = ContentOf(shard);
    // The same shard written again: equal in all but its uuid, and so in every length and place.
    Golden twin = shard;
    ShardHeader header;
    CHECK_OK(DecodeHeader(twin.bytes, &header));
    header.uuid[0] ^= 0x80;
    const std::vector<size_t> at = FrameOffsets(shard);
    for (size_t i = 0; i + 1 < at.size(); ++i) {
      FrameHeader frame;
      ShardHeader original;
      CHECK_OK(DecodeHeader(shard.bytes, &original));
      CHECK_OK(DecodeFrameHeader(ByteSpan(shard.bytes).subspan(at[i], kFrameHeaderLength), original,
                                 at[i], &frame));
      EncodeFrameHeader(&frame, header.uuid, at[i], twin.bytes.data() + at[i]);
    }
    for (size_t i = 0; i + 1 < at.size(); ++i) {
      Bytes bytes = shard.bytes;
      std::copy(twin.bytes.begin() + static_cast<ptrdiff_t>(at[i]),
                twin.bytes.begin() + static_cast<ptrdiff_t>(at[i + 1]),
                bytes.begin() + static_cast<ptrdiff_t>(at[i]));
      CheckDetected(bytes, content, shard.name + ": frame " + std::to_string(i) + " of a twin");
    }
    for (const Golden& other : ValidShards()) {
      if (other.name == shard.name) continue;
      const size_t cut = FrameOffsets(shard).back();
      CheckDetected(Join({ByteSpan(shard.bytes).first(cut), ByteSpan(other.bytes).last(64)}),
                    content, shard.name + " with the footer of " + other.name);
    }
  }
}

int main() { return sparselogits::testing::RunAll(); }
