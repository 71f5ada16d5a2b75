#include "sparselogits/verify.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

namespace sparselogits {
namespace {

// Adds a fault where two sequences have the same id; it concerns the second.
void CheckUniqueIds(const ShardReader& reader, const std::vector<uint64_t>& ids,
                    std::vector<ShardFault>* faults) {
  std::vector<uint32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return ids[a] < ids[b]; });
  const auto same = [&](uint32_t a, uint32_t b) { return ids[a] == ids[b]; };
  const auto found = std::adjacent_find(order.begin(), order.end(), same);
  if (found == order.end()) return;
  const uint32_t first = found[0], second = found[1];
  const ShardIndexView& index = reader.index();
  Status status =
      Status::Corruption(std::to_string(ids[first]) + " is the id of sequences " +
                         std::to_string(first) + " and " + std::to_string(second))
          .Field("sequence_id")
          .At(static_cast<int64_t>(index.sequence_frame_offset(index.FindSequenceFrame(second))));
  faults->push_back(
      {std::move(status).In(reader.path()), second, second + 1, false, {ids[second]}});
}

Status CheckDerived(const ShardReader& reader, const ShardWalker& walker) {
  const Footer& footer = reader.footer();
  const auto footer_at = static_cast<int64_t>(reader.bytes().size() - kFooterLength);
  if (walker.committed_end() != footer.index_offset)
    return Status::Corruption("the last frame before the index is not a commit")
        .Field("type")
        .At(static_cast<int64_t>(footer.index_offset));
  const auto compare = [&](const char* field, int64_t at, uint64_t stated, uint64_t found) {
    if (stated == found) return Status::Ok();
    return Status::Corruption("the footer states " + std::to_string(stated) + ", the frames hold " +
                              std::to_string(found))
        .Field(field)
        .At(footer_at + at);
  };
  const Totals& found = walker.totals();
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("num_positions", 24, footer.totals.num_positions, found.num_positions));
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("num_sequences", 32, footer.totals.num_sequences, found.num_sequences));
  SPARSELOGITS_RETURN_IF_ERROR(
      compare("num_entries", 40, footer.totals.num_entries, found.num_entries));
  if (walker.commit_chain() != footer.chain)
    return Status::Corruption("the footer's chain differs from that of the last commit")
        .Field("chain")
        .At(footer_at + 48);
  Frame stored;
  SPARSELOGITS_RETURN_IF_ERROR(ReadFrame(reader.bytes(), reader.bytes().size() - kFooterLength,
                                         reader.header(), footer.index_offset, CheckPayload::kYes,
                                         &stored));
  const Bytes expected = walker.index().Encode();
  if (!std::equal(expected.begin(), expected.end(), stored.content.begin(), stored.content.end()))
    return Status::Corruption("the index differs from the one that the frames give")
        .Field("index")
        .At(static_cast<int64_t>(footer.index_offset + kFrameHeaderLength));
  return Status::Ok();
}

// The end of the data: the offset of the INDX frame, found without the footer.
uint64_t FindIndex(ByteSpan file) {
  ShardHeader header;
  FrameHeader frame;
  if (file.size() < kHeaderLength || !DecodeHeader(file, &header).ok()) return file.size();
  uint64_t offset = kHeaderLength;
  while ((offset = FindFrame(file, file.size(), header, offset, &frame)) < file.size() &&
         frame.type != FrameType::kIndex)
    offset += frame.frame_length();
  return std::min<uint64_t>(offset, file.size());
}

// The ids of the sequences that a fault concerns; none of them where one cannot be read.
std::vector<uint64_t> ReadIds(const ShardReader& reader, uint32_t first, uint32_t last) {
  std::vector<uint64_t> ids;
  const ShardIndexView& index = reader.index();
  while (first < last) {
    const uint32_t number = index.FindSequenceFrame(first);
    const uint32_t start = index.sequence_frame_start(number);
    const uint32_t end = index.sequence_frame_start(number + 1);
    Frame frame;
    if (!reader.ReadSequenceFrame(number, &frame).ok()) return {};
    for (; first < std::min(last, end); ++first)
      ids.push_back(Load64(frame.content.data() + size_t{8} * (first - start)));
  }
  return ids;
}

}  // namespace

VerifiedShard FindFaults(std::shared_ptr<const MappedFile> file, const Models& models,
                         AfterFault after, const ShardWalker::Progress& progress) {
  VerifiedShard found;
  const std::string& path = file->path();
  const ByteSpan bytes = file->bytes();
  found.file = file;
  const auto add = [&](Status status) -> ShardFault& {
    return found.faults.emplace_back(ShardFault{std::move(status).In(path), 0, 0, false, {}});
  };
  Status opened = ShardReader::Open(file, models, CheckPayload::kYes, &found.reader);
  if (!opened.ok()) {
    add(std::move(opened)).concerns_all = true;
    if (after == AfterFault::kStop) return found;
  }
  const auto on_fault = [&](uint64_t offset, uint64_t next, Status status) {
    ShardFault& fault = add(std::move(status));
    if (found.reader != nullptr) {
      std::tie(fault.first_sequence, fault.last_sequence) =
          found.reader->index().SequencesInFrames(offset, next);
      fault.sequence_ids = ReadIds(*found.reader, fault.first_sequence, fault.last_sequence);
    }
    return after == AfterFault::kGoOn;
  };
  const uint64_t end =
      found.reader != nullptr ? found.reader->footer().index_offset : FindIndex(bytes);
  found.walker = std::make_unique<ShardWalker>(bytes, WalkDepth::kRecords, models);
  const Status header = found.walker->Walk(end, progress, on_fault);
  // What was derived from frames cannot be judged where some are damaged.
  if (!found.faults.empty()) return found;
  Status derived = header.ok() ? CheckDerived(*found.reader, *found.walker) : header;
  if (!derived.ok()) add(std::move(derived));
  if (found.faults.empty())
    CheckUniqueIds(*found.reader, found.walker->sequence_ids(), &found.faults);
  return found;
}

Status VerifyShard(std::shared_ptr<const MappedFile> file, const Models& models,
                   const ShardWalker::Progress& progress, VerifiedShard* verified) {
  *verified = FindFaults(std::move(file), models, AfterFault::kStop, progress);
  return verified->faults.empty() ? Status::Ok() : verified->faults.front().status;
}

Status VerifyShard(const std::string& path, const Models& models,
                   const ShardWalker::Progress& progress, VerifiedShard* verified) {
  std::unique_ptr<MappedFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  return VerifyShard(std::move(file), models, progress, verified);
}

}  // namespace sparselogits
