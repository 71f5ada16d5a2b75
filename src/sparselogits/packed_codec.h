// The `packed` codec: Elias-Fano ids and gamma-coded counts (formats/v1.md section 5).
#pragma once

#include "sparselogits/codec.h"

namespace sparselogits {

class PackedCodec final : public BlockCodec {
 public:
  explicit PackedCodec(const RecordFormat& format);

  bool Encode(const BlockView& block, Bytes* out) const override;
  Status Decode(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                RecordBatch* out, int32_t* tokens) const override;
  Status DecodeTokens(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                      int32_t* out) const override;
  Status Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
               BlockSections* sections) const override;

 private:
  struct Layout;  // where the sections of one block are
  struct Cursor;  // a bit position in one stretch

  // The records alone, compiled for several instruction sets; a virtual function cannot be.
  Status DecodeRange(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                     RecordBatch* out) const;
  Status ParseLayout(ByteSpan content, uint32_t num_positions, Layout* layout) const;
  Status StretchRange(const Layout& layout, uint32_t stretch, Cursor* cursor) const;
  Status DecodeRecord(const Layout& layout, Cursor* cursor, RecordBatch* out) const;
  Status SkipRecord(const Layout& layout, Cursor* cursor, BlockSections* sections) const;

  RecordFormat format_;
  int token_bits_;
};

}  // namespace sparselogits
