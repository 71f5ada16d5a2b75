// Where the parts of a compact block are (formats/v1.md section 12). Private to the compact codec.
#pragma once

#include "sparselogits/bit_reader.h"
#include "sparselogits/bytes.h"
#include "sparselogits/compact_bit_window.h"
#include "sparselogits/compact_layout.h"
#include "sparselogits/records.h"
#include "sparselogits/status.h"

namespace sparselogits::compact {

class Block {
 public:
  // Offsets in a Status are relative to the content.
  static Status Parse(ByteSpan content, const RecordFormat& format, uint32_t num_positions,
                      Block* out);

  uint32_t num_positions() const { return num_positions_; }
  uint32_t num_stretches() const { return num_stretches_; }
  ByteSpan records() const { return records_; }
  size_t records_offset() const { return records_offset_; }  // in the content

  struct Stretch {
    uint64_t begin, end;   // bits of the records; the end of the last one is that of its padding
    uint32_t first, last;  // positions
  };
  Status FindStretch(uint32_t stretch, Stretch* out) const;
  // At the first bit of a stretch.
  BitWindow WindowAt(const Stretch& stretch) const {
    return {records_.data(), stretch.begin, records_.data() + records_.size()};
  }
  Status FirstToken(uint32_t* token) const;
  // Whether the bits behind the directory are zero.
  Status CheckPadding() const;

 private:
  uint64_t start(uint32_t stretch) const;

  uint32_t num_positions_ = 0, num_stretches_ = 0, vocab_size_ = 0;
  int start_bits_ = 0, token_bits_ = 0;  // token_bits_: 0 where no tokens are stored
  uint64_t step_ = 0, bias_ = 0;
  const uint8_t* directory_ = nullptr;
  uint64_t directory_bits_ = 0;
  ByteSpan records_;
  size_t records_offset_ = 0;
};

}  // namespace sparselogits::compact
