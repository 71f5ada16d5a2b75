// How the positions of a block become bytes. A codec is stateless: blocks are independent.
#pragma once

#include <cstdint>
#include <memory>

#include "sparselogits/records.h"
#include "sparselogits/status.h"

namespace sparselogits {

enum class CodecId : uint8_t { kPacked = 0, kCompact = 1 };

// Where the bits of a block's content go, in bits.
struct BlockSections {
  uint64_t block_header = 0;
  uint64_t directory = 0;
  uint64_t tokens = 0;
  uint64_t presence = 0;
  uint64_t counts = 0;
  uint64_t entry_numbers = 0;
  uint64_t ids = 0;
  uint64_t weights = 0;
  uint64_t stretch_padding = 0;
};

class BlockCodec {
 public:
  virtual ~BlockCodec() = default;

  // Appends the content of the block to `out`.
  // REQUIRES: the block is valid for the format (ids ascending and < vocab_size, counts that sum
  // to rounds, ...): the writer has checked it.
  virtual void Encode(const BlockView& block, Bytes* out) const = 0;

  // Appends the records of positions first .. last - 1 to `out`. Whatever the content is, nothing
  // outside it and kReadPadding bytes after it is read. Offsets in a Status are relative to the
  // content. REQUIRES: first <= last <= num_positions.
  virtual Status DecodeRecords(ByteSpan content, uint32_t num_positions, uint32_t first,
                               uint32_t last, RecordBatch* out) const = 0;

  // Writes the input tokens of positions first .. last - 1. REQUIRES: the format stores tokens.
  virtual Status DecodeTokens(ByteSpan content, uint32_t num_positions, uint32_t first,
                              uint32_t last, int32_t* out) const = 0;

  // Checks everything that formats/v1.md promises about the content, and adds up its bits.
  virtual Status Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
                       BlockSections* sections) const = 0;
};

// Whether this build has the codec.
inline bool IsKnownCodec(CodecId id) { return id == CodecId::kPacked; }

// REQUIRES: IsKnownCodec(id).
std::unique_ptr<BlockCodec> MakeCodec(CodecId id, const RecordFormat& format);

}  // namespace sparselogits
