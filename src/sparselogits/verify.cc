#include "sparselogits/verify.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace sparselogits {
namespace {

Status CheckUniqueIds(const ShardReader& reader, const std::vector<uint64_t>& ids) {
  std::vector<uint32_t> order(ids.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto by_id = [&](uint32_t a, uint32_t b) {
    return ids[a] != ids[b] ? ids[a] < ids[b] : a < b;
  };
  std::sort(order.begin(), order.end(), by_id);
  for (size_t i = 1; i < order.size(); ++i) {
    if (ids[order[i]] != ids[order[i - 1]]) continue;
    const ShardIndexView& index = reader.index();
    return Status::Corruption(std::to_string(ids[order[i]]) + " is the id of sequences " +
                              std::to_string(order[i - 1]) + " and " + std::to_string(order[i]))
        .Field("sequence_id")
        .At(static_cast<int64_t>(index.sequence_frame_offset(index.FindSequenceFrame(order[i]))));
  }
  return Status::Ok();
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

}  // namespace

Status VerifyShard(const std::string& path, const std::function<void(uint64_t)>& progress,
                   VerifiedShard* verified) {
  std::unique_ptr<MappedFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  return VerifyShard(std::move(file), progress, verified);
}

Status VerifyShard(std::unique_ptr<MappedFile> file, const std::function<void(uint64_t)>& progress,
                   VerifiedShard* verified) {
  SPARSELOGITS_RETURN_IF_ERROR(
      ShardReader::Open(std::move(file), CheckPayload::kYes, &verified->reader));
  const ShardReader& reader = *verified->reader;
  const std::string& path = reader.path();
  verified->walker = std::make_unique<ShardWalker>(reader.bytes(), WalkDepth::kRecords);
  SPARSELOGITS_RETURN_IF_ERROR(
      verified->walker->Walk(reader.footer().index_offset, progress).In(path));
  SPARSELOGITS_RETURN_IF_ERROR(CheckDerived(reader, *verified->walker).In(path));
  return CheckUniqueIds(reader, verified->walker->sequence_ids()).In(path);
}

}  // namespace sparselogits
