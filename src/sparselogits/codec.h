// How the positions of a block become bytes. A codec is stateless: blocks are independent.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

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
  uint64_t classes = 0;  // of positions, in compact blocks
};

class BlockCodec {
 public:
  virtual ~BlockCodec() = default;

  // Appends the content of the block to `out`. False, with nothing appended, where the codec has no
  // code for something in it; `packed` always has. Not to be called from two threads at once.
  // REQUIRES: the block is valid for the format (ids ascending and < vocab_size, counts that sum
  // to rounds, ...): the writer has checked it.
  virtual bool Encode(const BlockView& block, Bytes* out) const = 0;

  // Appends the records of positions first .. last - 1 to `out` and, where `tokens` is not null,
  // writes their input tokens. Whatever the content is, nothing outside it and kReadPadding bytes
  // after it is read. Offsets in a Status are relative to the content.
  // REQUIRES: first <= last <= num_positions; the format stores tokens, or `tokens` is null.
  virtual Status Decode(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                        RecordBatch* out, int32_t* tokens) const = 0;

  // The input tokens alone. REQUIRES: as for Decode.
  virtual Status DecodeTokens(ByteSpan content, uint32_t num_positions, uint32_t first,
                              uint32_t last, int32_t* tokens) const;

  // Checks everything that formats/v1.md promises about the content, and adds up its bits.
  virtual Status Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
                       BlockSections* sections) const = 0;
};

// Whether this build has the codec.
inline bool IsKnownCodec(CodecId id) { return id == CodecId::kPacked || id == CodecId::kCompact; }

// The trained part of the compact codec, shared by the shards that name it by digest.
class CompactModel;
using ModelPtr = std::shared_ptr<const CompactModel>;
using Models = std::vector<ModelPtr>;

// The codecs that the blocks of one shard may name.
class CodecSet {
 public:
  // `model` may be null: the set then has no compact codec.
  CodecSet(const RecordFormat& format, ModelPtr model);

  // REQUIRES: has(id).
  const BlockCodec& of(CodecId id) const { return id == CodecId::kPacked ? *packed_ : *compact_; }
  bool has(CodecId id) const { return id == CodecId::kPacked || compact_ != nullptr; }

 private:
  std::unique_ptr<BlockCodec> packed_, compact_;
};

}  // namespace sparselogits
