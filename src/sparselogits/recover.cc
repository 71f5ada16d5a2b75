#include "sparselogits/recover.h"

#include "sparselogits/mapped_file.h"
#include "sparselogits/output_file.h"
#include "sparselogits/shard_walker.h"
#include "sparselogits/shard_writer.h"

namespace sparselogits {

Status RecoverShard(const std::string& partial_path, const std::string& path,
                    RecoveredShard* recovered) {
  std::unique_ptr<OutputFile> output;  // first, for its lock
  SPARSELOGITS_RETURN_IF_ERROR(OutputFile::Reopen(partial_path, &output));
  std::unique_ptr<MappedFile> input;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(partial_path, &input));

  ShardWalker search(input->bytes(), WalkDepth::kFrames);
  const Status stopped = search.Walk(input->bytes().size());
  const uint64_t end = search.committed_end();
  // A file that this release cannot read at all is not the remains of one of its writers: they
  // sync the header before they write more.
  if (end == 0 && !stopped.ok() && input->bytes().size() > kHeaderLength &&
      stopped.offset() < static_cast<int64_t>(kHeaderLength))
    return Status(stopped).In(partial_path);
  if (stopped.code() == StatusCode::kUnsupported) return Status(stopped).In(partial_path);

  recovered->header = search.header();
  recovered->metadata = search.metadata();
  recovered->dropped_bytes = input->bytes().size() - end;

  ShardWalker committed(input->bytes(), WalkDepth::kFrames);
  if (end > 0) SPARSELOGITS_RETURN_IF_ERROR(committed.Walk(end).In(partial_path));
  if (committed.totals().num_sequences == 0) return RemoveFile(partial_path);
  recovered->totals = committed.totals();
  input.reset();  // a mapping must not reach beyond the end of its file
  SPARSELOGITS_RETURN_IF_ERROR(output->Truncate(end));
  SPARSELOGITS_RETURN_IF_ERROR(SealShard(output.get(), committed.header(), committed.index(),
                                         committed.totals(), committed.commit_chain(), path));
  recovered->file_length = output->size();
  return Status::Ok();
}

}  // namespace sparselogits
