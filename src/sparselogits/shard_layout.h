// The fixed-size parts of a shard: header, frame header, commit, footer. The one place in C++
// that knows their offsets (formats/v1.md sections 3, 4 and 7).
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "sparselogits/codec.h"
#include "sparselogits/limits.h"
#include "sparselogits/records.h"
#include "sparselogits/status.h"

namespace sparselogits {

using Uuid = std::array<uint8_t, 16>;

inline constexpr uint16_t kVersionMajor = 1;
inline constexpr uint16_t kVersionMinor = 0;
inline constexpr uint32_t kFeatureLz4Frames = 1u << 0;
inline constexpr uint32_t kFeatureCodecModel = 1u << 1;
inline constexpr uint32_t kKnownIncompatibleFeatures = kFeatureLz4Frames | kFeatureCodecModel;

inline constexpr size_t kHeaderLength = 128;
inline constexpr size_t kFrameHeaderLength = 32;
inline constexpr size_t kCodecOffset = 4;  // of `codec` in a frame header
inline constexpr size_t kCommitLength = 32;
inline constexpr size_t kFooterLength = 64;
inline constexpr size_t kFrameAlignment = kFrameUnit;
inline constexpr size_t kBytesPerSequence = 20;  // in a SEQS frame: id, fingerprint, length
inline constexpr size_t kMaxSamplerLength = 16;

inline constexpr uint64_t PaddedLength(uint64_t length) { return (length + 7) & ~uint64_t{7}; }

// Everything about a cache that each of its shards repeats.
struct ShardConfig {
  RecordFormat format;
  CodecId codec = CodecId::kPacked;
  std::string sampler;
  double temperature = 1.0;
  double proposal_temperature = 1.0;
  uint64_t tokenizer_fingerprint = 0;

  bool operator==(const ShardConfig&) const = default;
};

// Says which field of a configuration is outside its limits; the caller's input, not a file's.
Status CheckConfig(const ShardConfig& config);

struct ShardHeader {
  Uuid uuid{};
  ShardConfig config;
  uint32_t incompatible_features = 0;
  uint8_t block_log2 = 0;
  uint64_t model_digest = 0;
};

void EncodeHeader(const ShardHeader& header, uint8_t* out);
// REQUIRES: bytes.size() >= kHeaderLength.
Status DecodeHeader(ByteSpan bytes, ShardHeader* header);

enum class FrameType : uint32_t {  // the four ASCII characters, as a little-endian u32
  kMetadata = 0x4154454D,          // META
  kBlock = 0x4B434C42,             // BLCK
  kSequences = 0x53514553,         // SEQS
  kCommit = 0x54494D43,            // CMIT
  kIndex = 0x58444E49,             // INDX
};

// How many times its payload (plus one byte) a wrapped content may be.
inline constexpr uint64_t MaxLz4Ratio(FrameType type) {
  return type == FrameType::kSequences ? kMaxLz4RatioOfSequences : kMaxLz4Ratio;
}

enum class Wrapping : uint8_t { kNone = 0, kLz4 = 1 };

struct FrameHeader {
  FrameType type{};
  CodecId codec = CodecId::kPacked;
  Wrapping wrapping = Wrapping::kNone;
  uint32_t payload_length = 0;
  uint32_t content_length = 0;
  uint32_t num_items = 0;
  uint32_t num_entries = 0;
  uint32_t payload_crc = 0;
  uint32_t frame_crc = 0;  // set by EncodeFrameHeader and DecodeFrameHeader

  uint64_t frame_length() const { return kFrameHeaderLength + PaddedLength(payload_length); }
};

void EncodeFrameHeader(FrameHeader* frame, const Uuid& uuid, uint64_t offset, uint8_t* out);
// Checks frame_crc and then every field. REQUIRES: bytes.size() >= kFrameHeaderLength.
Status DecodeFrameHeader(ByteSpan bytes, const ShardHeader& shard, uint64_t offset,
                         FrameHeader* frame);

// What a shard holds up to a point.
struct Totals {
  uint64_t num_positions = 0;
  uint64_t num_sequences = 0;
  uint64_t num_entries = 0;

  bool operator==(const Totals&) const = default;
};

void EncodeCommit(const Totals& totals, uint32_t chain, uint8_t* out);
// REQUIRES: content.size() == kCommitLength.
Status DecodeCommit(ByteSpan content, Totals* totals, uint32_t* chain);

struct Footer {
  uint64_t index_offset = 0;
  uint64_t file_length = 0;
  Totals totals;
  uint32_t chain = 0;
};

void EncodeFooter(const Footer& footer, const Uuid& uuid, uint8_t* out);
// REQUIRES: bytes.size() == kFooterLength.
Status DecodeFooter(ByteSpan bytes, const Uuid& uuid, Footer* footer);

}  // namespace sparselogits
