// The `compact` codec: entropy-coded sets of ids, with a trained model (formats/v1.md section 12).
#pragma once

#include "sparselogits/codec.h"
#include "sparselogits/compact_model.h"

namespace sparselogits {

class CompactEncoder;
namespace compact {
class Block;
enum class Fault : uint8_t;
}  // namespace compact

class CompactCodec final : public BlockCodec {
 public:
  // REQUIRES: FieldThatModelLacks(*model, format) == nullptr.
  CompactCodec(const RecordFormat& format, ModelPtr model);
  ~CompactCodec() override;

  bool Encode(const BlockView& block, Bytes* out) const override;
  Status Decode(ByteSpan content, uint32_t num_positions, uint32_t first, uint32_t last,
                RecordBatch* out, int32_t* tokens) const override;
  Status Check(ByteSpan content, uint32_t num_positions, uint32_t num_entries,
               BlockSections* sections) const override;

 private:
  static Status FaultAt(const compact::Block& block, compact::Fault fault, uint64_t bit);

  RecordFormat format_;
  ModelPtr model_;
  mutable std::unique_ptr<CompactEncoder> encoder_;  // made by the first Encode
};

}  // namespace sparselogits
