// Reads one finished shard: validated when it is opened, its frames when they are first touched.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sparselogits/codec.h"
#include "sparselogits/frame_reader.h"
#include "sparselogits/mapped_file.h"
#include "sparselogits/shard_index.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits {

struct SequenceInfo {
  uint64_t sequence_id;
  uint64_t fingerprint;
};

// Safe to use from several threads at once, and in the child of a fork.
class ShardReader {
 public:
  ~ShardReader() { delete sequences_.load(std::memory_order_acquire); }
  ShardReader(const ShardReader&) = delete;
  ShardReader& operator=(const ShardReader&) = delete;
  // `models`: those of the cache; the one that the shard needs must be among them.
  static Status Open(const std::string& path, const Models& models, CheckPayload check_payloads,
                     std::unique_ptr<ShardReader>* out);
  static Status Open(std::shared_ptr<const MappedFile> file, const Models& models,
                     CheckPayload check_payloads, std::unique_ptr<ShardReader>* out);

  const std::string& path() const { return file_->path(); }
  ByteSpan bytes() const { return file_->bytes(); }
  const ShardHeader& header() const { return header_; }
  const Footer& footer() const { return footer_; }
  const ShardIndexView& index() const { return index_; }

  Status ReadMetadata(Bytes* metadata) const;
  // Appends the records of positions first .. last - 1 of the shard to `batch` and, where the shard
  // stores tokens and `tokens` is not null, writes their input tokens.
  // REQUIRES: first <= last <= num_positions.
  Status ReadPositions(uint64_t first, uint64_t last, RecordBatch* batch, int32_t* tokens) const;
  // Reads a SEQS frame of the index. REQUIRES: frame_number < index().num_sequence_frames().
  Status ReadSequenceFrame(uint32_t frame_number, Frame* frame) const;
  // The bytes of the file among which that frame lies: its first one and an end.
  std::pair<uint64_t, uint64_t> SequenceFrameRange(uint32_t frame_number) const;
  // Writes what the SEQS frames say of every sequence, in order.
  Status ReadSequenceTable(SequenceInfo* out) const;
  // The same, read once and kept; valid as long as this object.
  Status Sequences(std::span<const SequenceInfo>* out) const;

 private:
  explicit ShardReader(std::shared_ptr<const MappedFile> file, CheckPayload check_payloads)
      : file_(std::move(file)), check_payloads_(check_payloads) {}
  Status Validate(const Models& models);
  Status BlockContent(uint32_t block, ByteSpan* content,
                      std::shared_ptr<const Frame>* holder) const;

  std::shared_ptr<const MappedFile> file_;
  CheckPayload check_payloads_;
  ShardHeader header_;
  Footer footer_;
  ShardIndexView index_;
  std::unique_ptr<CodecSet> codecs_;
  // Blocks whose frame was found good. A flag that is set late only means a check made twice.
  mutable std::unique_ptr<std::atomic<bool>[]> touched_;
  // The LZ4-wrapped block read last. Its mutex is only ever tried, and the block decoded again
  // where that fails: a child may be forked while another thread of the parent holds it.
  mutable std::mutex unwrapped_mutex_;
  mutable std::shared_ptr<const Frame> unwrapped_;
  // Null until Sequences() is first asked. Threads may both read it: a lock could be forked.
  mutable std::atomic<const std::vector<SequenceInfo>*> sequences_ = nullptr;
};

}  // namespace sparselogits
