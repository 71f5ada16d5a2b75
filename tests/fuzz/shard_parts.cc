#include "shard_parts.h"

#include <algorithm>
#include <cstring>

#include "sparselogits/crc32c.h"
#include "sparselogits/lz4_block.h"
#include "sparselogits/shard_index.h"

namespace sparselogits::fuzz {
namespace {

constexpr char kFooterMagic[] = "SLCFOOT1";

// What frames add up to so far, and the index that they give.
struct Running {
  Totals totals;
  uint32_t chain = 0, chain_at_commit = 0;
  ShardIndex index;
};

void StateTotals(const Totals& totals, uint8_t* out) {
  Store64(out, totals.num_positions);
  Store64(out + 8, totals.num_sequences);
  Store64(out + 16, totals.num_entries);
}

// The lengths of a SEQS frame, which the index repeats.
void AddSequences(const PartFrame& frame, uint64_t offset, Running* running) {
  Bytes content = frame.payload;
  if (frame.is_wrapped()) content = UnwrapPayload(frame, size_t{1} << 20).value_or(Bytes());
  const size_t n = content.size() / kBytesPerSequence;
  for (size_t i = 0; i < n; ++i)
    running->index.AddSequence(Load32(content.data() + 16 * n + 4 * i));
  running->index.AddSequenceFrame(offset, static_cast<uint32_t>(running->totals.num_sequences));
  running->totals.num_sequences += frame.num_items();
}

void Append(Bytes* out, ByteSpan bytes) { out->insert(out->end(), bytes.begin(), bytes.end()); }

// The frame as it stands at `offset`, and what follows from it.
Bytes BuildFrame(PartFrame frame, uint64_t offset, const uint8_t* uuid,
                 const Restamping& restamping, Running* running) {
  uint8_t* const header = frame.header.data();
  if (frame.is(FrameType::kIndex) && restamping.index) frame.payload = running->index.Encode();
  if (frame.is(FrameType::kCommit) && frame.payload.size() == kCommitLength) {
    if (restamping.totals) StateTotals(running->totals, frame.payload.data());
    if (restamping.checksums) Store32(frame.payload.data() + 24, running->chain);
    running->chain_at_commit = running->chain;
  }
  if (restamping.lengths) {
    Store32(header + 8, static_cast<uint32_t>(frame.payload.size()));
    if (!frame.is_wrapped()) Store32(header + 12, static_cast<uint32_t>(frame.payload.size()));
  }
  Bytes padded = frame.payload;
  padded.resize(PaddedLength(padded.size()));
  if (restamping.checksums) {
    Store32(header + 24, Crc32c(padded));
    uint8_t place[8];
    Store64(place, offset);
    uint32_t crc = ExtendCrc32c(0, uuid, sizeof(Uuid));
    crc = ExtendCrc32c(crc, place, sizeof(place));
    Store32(header + 28, ExtendCrc32c(crc, header, kFrameHeaderLength - 4));
  }
  if (!frame.is(FrameType::kIndex)) running->chain = ExtendCrc32c(running->chain, header + 28, 4);
  if (frame.is(FrameType::kBlock)) {
    running->index.AddBlock(offset, frame.num_items());
    running->totals.num_positions += frame.num_items();
    running->totals.num_entries += frame.num_entries();
  }
  if (frame.is(FrameType::kSequences)) AddSequences(frame, offset, running);
  Bytes out(frame.header.begin(), frame.header.end());
  Append(&out, padded);
  return out;
}

}  // namespace

std::optional<ShardParts> ShardParts::Parse(ByteSpan bytes) {
  if (bytes.size() < kHeaderLength) return std::nullopt;
  ShardParts parts;
  std::copy_n(bytes.begin(), kHeaderLength, parts.header.begin());
  size_t end = bytes.size();
  if (end >= kHeaderLength + kFooterLength &&
      std::memcmp(bytes.data() + end - kFooterLength, kFooterMagic, 8) == 0) {
    end -= kFooterLength;
    parts.footer.emplace();
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(end), kFooterLength, parts.footer->begin());
  }
  size_t at = kHeaderLength;
  while (end - at >= kFrameHeaderLength) {
    PartFrame frame;
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at), kFrameHeaderLength,
                frame.header.begin());
    const uint64_t length = Load32(frame.header.data() + 8);
    if (PaddedLength(length) > end - at - kFrameHeaderLength) break;
    const ByteSpan payload = bytes.subspan(at + kFrameHeaderLength, length);
    frame.payload.assign(payload.begin(), payload.end());
    parts.frames.push_back(std::move(frame));
    at += kFrameHeaderLength + PaddedLength(length);
  }
  parts.tail.assign(bytes.begin() + static_cast<ptrdiff_t>(at),
                    bytes.begin() + static_cast<ptrdiff_t>(end));
  return parts;
}

Bytes ShardParts::Build(const Restamping& restamping) const {
  Bytes out(header.begin(), header.end());
  if (restamping.checksums) Store32(out.data() + 124, ExtendCrc32c(0, out.data(), 124));
  const Bytes uuid(out.begin() + 24, out.begin() + 40);
  Running running;
  uint64_t index_offset = 0;
  for (const PartFrame& frame : frames) {
    if (frame.is(FrameType::kIndex)) index_offset = out.size();
    Append(&out, BuildFrame(frame, out.size(), uuid.data(), restamping, &running));
  }
  Append(&out, tail);
  if (!footer) return out;
  std::array<uint8_t, kFooterLength> stamped = *footer;
  if (restamping.lengths) {
    Store64(stamped.data() + 8, index_offset);
    Store64(stamped.data() + 16, out.size() + kFooterLength);
  }
  if (restamping.totals) StateTotals(running.totals, stamped.data() + 24);
  if (restamping.checksums) {
    Store32(stamped.data() + 48, running.chain_at_commit);
    Store32(stamped.data() + 60,
            ExtendCrc32c(ExtendCrc32c(0, uuid.data(), uuid.size()), stamped.data(), 60));
  }
  Append(&out, stamped);
  return out;
}

std::optional<Bytes> UnwrapPayload(const PartFrame& frame, size_t limit) {
  const size_t length = Load32(frame.header.data() + 12);
  if (!frame.is_wrapped() || CurrentLz4() == nullptr || length > limit) return std::nullopt;
  Bytes content(length);
  if (!CurrentLz4()->decompress(frame.payload, content.data(), length)) return std::nullopt;
  return content;
}

void WrapPayload(ByteSpan content, PartFrame* frame) {
  Bytes wrapped;
  if (CurrentLz4() == nullptr || !CurrentLz4()->compress(content, &wrapped)) return;
  frame->payload = std::move(wrapped);
  frame->header[5] = static_cast<uint8_t>(Wrapping::kLz4);
  Store32(frame->header.data() + 12, static_cast<uint32_t>(content.size()));
}

}  // namespace sparselogits::fuzz
