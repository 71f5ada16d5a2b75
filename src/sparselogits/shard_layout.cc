#include "sparselogits/shard_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "sparselogits/crc32c.h"
#include "sparselogits/limits.h"

namespace sparselogits {
namespace {

constexpr uint8_t kHeaderMagic[8] = {0x89, 'S', 'L', 'C', '\r', '\n', 0x1A, '\n'};
constexpr uint8_t kFooterMagic[8] = {'S', 'L', 'C', 'F', 'O', 'O', 'T', '1'};

Status BadField(const char* field, int64_t offset, const std::string& what) {
  return Status::Corruption(what).Field(field).At(offset);
}

bool AllZero(const uint8_t* bytes, size_t size) {
  return std::all_of(bytes, bytes + size, [](uint8_t byte) { return byte == 0; });
}

uint32_t FrameCrc(const Uuid& uuid, uint64_t offset, const uint8_t* frame) {
  uint8_t place[sizeof(uint64_t)];
  Store64(place, offset);
  uint32_t crc = ExtendCrc32c(0, uuid.data(), uuid.size());
  crc = ExtendCrc32c(crc, place, sizeof(place));
  return ExtendCrc32c(crc, frame, kFrameHeaderLength - 4);
}

bool IsSamplerName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxSamplerLength &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
         });
}

// The first field outside its limits, or null. Both the writer and the reader of a header ask.
const char* BadConfigField(const ShardConfig& config, std::string* what) {
  const auto temperature_is_bad = [what](double value) {
    if (std::isfinite(value) && value > 0) return false;
    *what = std::to_string(value) + " is not a finite number above 0";
    return true;
  };
  const RecordFormat& format = config.format;
  if (format.vocab_size < 1 || format.vocab_size > kMaxVocabSize) {
    *what = std::to_string(format.vocab_size) + " is outside 1 ... 2^24";
    return "vocab_size";
  }
  if (format.rounds < 1 || format.rounds > kMaxRounds) {
    *what = std::to_string(format.rounds) + " is outside 1 ... 65535";
    return "rounds";
  }
  if (format.value_kind > ValueKind::kWeights) {
    *what = std::to_string(static_cast<int>(format.value_kind)) + " is not a value kind";
    return "value_kind";
  }
  if ((format.value_kind == ValueKind::kCounts) != (format.weight_dtype == WeightDtype::kNone) ||
      format.weight_dtype > WeightDtype::kBfloat16) {
    *what = std::to_string(static_cast<int>(format.weight_dtype)) +
            " is not a weight dtype of this value kind";
    return "weight_dtype";
  }
  if (!IsSamplerName(config.sampler)) {
    *what = "'" + config.sampler + "' is not 1 to 16 characters of a-z 0-9 _ -";
    return "sampler";
  }
  if (temperature_is_bad(config.temperature)) return "temperature";
  if (temperature_is_bad(config.proposal_temperature)) return "proposal_temperature";
  return nullptr;
}

}  // namespace

Status CheckConfig(const ShardConfig& config) {
  std::string what;
  const char* const field = BadConfigField(config, &what);
  if (field != nullptr) return Status::InvalidArgument(std::string(field) + ": " + what);
  if (!IsKnownCodec(config.codec))
    return Status::InvalidArgument("codec: 'compact' cannot be written by this version");
  return Status::Ok();
}

void EncodeHeader(const ShardHeader& header, uint8_t* out) {
  std::memset(out, 0, kHeaderLength);
  std::memcpy(out, kHeaderMagic, sizeof(kHeaderMagic));
  Store16(out + 8, kVersionMajor);
  Store16(out + 10, kVersionMinor);
  Store32(out + 12, static_cast<uint32_t>(kHeaderLength));
  Store32(out + 16, header.incompatible_features);
  std::memcpy(out + 24, header.uuid.data(), header.uuid.size());
  const ShardConfig& config = header.config;
  Store32(out + 40, config.format.vocab_size);
  Store32(out + 44, config.format.rounds);
  out[48] = static_cast<uint8_t>(config.format.value_kind);
  out[49] = static_cast<uint8_t>(config.format.weight_dtype);
  out[50] = static_cast<uint8_t>(config.codec);
  out[51] = header.block_log2;
  out[52] = config.format.store_tokens ? 1 : 0;
  std::memcpy(out + 56, config.sampler.data(), config.sampler.size());
  StoreDouble(out + 72, config.temperature);
  StoreDouble(out + 80, config.proposal_temperature);
  Store64(out + 88, config.tokenizer_fingerprint);
  Store64(out + 96, header.model_digest);
  Store32(out + 124, ExtendCrc32c(0, out, 124));
}

Status DecodeHeader(ByteSpan bytes, ShardHeader* header) {
  const uint8_t* const in = bytes.data();
  if (std::memcmp(in, kHeaderMagic, sizeof(kHeaderMagic)) != 0)
    return BadField("magic", 0, "not a sparselogits shard");
  if (Load16(in + 8) != kVersionMajor)
    return Status::Unsupported("format version " + std::to_string(Load16(in + 8)) + "." +
                               std::to_string(Load16(in + 10)) +
                               "; this release reads version 1: use a newer sparselogits")
        .Field("version_major")
        .At(8);
  if (Load32(in + 124) != ExtendCrc32c(0, in, 124))
    return BadField("header_crc", 124, "the header's checksum does not match");
  if (Load32(in + 12) != kHeaderLength)
    return BadField("header_length", 12, std::to_string(Load32(in + 12)) + " is not 128");
  header->incompatible_features = Load32(in + 16);
  const uint32_t unknown = header->incompatible_features & ~kKnownIncompatibleFeatures;
  if (unknown != 0) {
    const int bit = std::countr_zero(unknown);
    return Status::Unsupported("the shard needs feature bit " + std::to_string(bit) +
                               (bit == 1 ? " (codec_model)" : "") +
                               ", which this release does not know: use a newer sparselogits")
        .Field("incompatible_features")
        .At(16);
  }
  std::memcpy(header->uuid.data(), in + 24, header->uuid.size());
  ShardConfig* const config = &header->config;
  config->format.vocab_size = Load32(in + 40);
  config->format.rounds = Load32(in + 44);
  config->format.value_kind = static_cast<ValueKind>(in[48]);
  config->format.weight_dtype = static_cast<WeightDtype>(in[49]);
  config->codec = static_cast<CodecId>(in[50]);
  header->block_log2 = in[51];
  const uint8_t* const sampler = in + 56;
  const uint8_t* const sampler_end = std::find(sampler, sampler + kMaxSamplerLength, uint8_t{0});
  config->sampler.assign(sampler, sampler_end);
  config->temperature = LoadDouble(in + 72);
  config->proposal_temperature = LoadDouble(in + 80);
  config->tokenizer_fingerprint = Load64(in + 88);
  header->model_digest = Load64(in + 96);

  std::string what;
  if (const char* const field = BadConfigField(*config, &what)) {
    const std::string name = field;
    const int64_t offset = name == "vocab_size"     ? 40
                           : name == "rounds"       ? 44
                           : name == "value_kind"   ? 48
                           : name == "weight_dtype" ? 49
                           : name == "sampler"      ? 56
                           : name == "temperature"  ? 72
                                                    : 80;
    return BadField(field, offset, what);
  }
  if (!AllZero(sampler_end, static_cast<size_t>(sampler + kMaxSamplerLength - sampler_end)))
    return BadField("sampler", 56, "bytes after the name are not zero");
  if (!IsKnownCodec(config->codec))
    return Status::Unsupported("codec " + std::to_string(in[50]) +
                               " is not known to this release: use a newer sparselogits")
        .Field("codec")
        .At(50);
  if (header->model_digest != 0 && (header->incompatible_features & kFeatureCodecModel) == 0)
    return BadField("model_digest", 96, "a digest without the feature codec_model");
  if (header->block_log2 < kMinBlockLog2 || header->block_log2 > kMaxBlockLog2)
    return BadField("block_log2", 51, std::to_string(in[51]) + " is outside 6 ... 16");
  if (in[52] > 1) return BadField("store_tokens", 52, std::to_string(in[52]) + " is not 0 or 1");
  config->format.store_tokens = in[52] == 1;
  if (!AllZero(in + 53, 3)) return BadField("reserved", 53, "reserved bytes are not zero");
  if (!AllZero(in + 104, 20)) return BadField("reserved", 104, "reserved bytes are not zero");
  return Status::Ok();
}

void EncodeFrameHeader(FrameHeader* frame, const Uuid& uuid, uint64_t offset, uint8_t* out) {
  std::memset(out, 0, kFrameHeaderLength);
  Store32(out, static_cast<uint32_t>(frame->type));
  out[4] = static_cast<uint8_t>(frame->codec);
  out[5] = static_cast<uint8_t>(frame->wrapping);
  Store32(out + 8, frame->payload_length);
  Store32(out + 12, frame->content_length);
  Store32(out + 16, frame->num_items);
  Store32(out + 20, frame->num_entries);
  Store32(out + 24, frame->payload_crc);
  frame->frame_crc = FrameCrc(uuid, offset, out);
  Store32(out + 28, frame->frame_crc);
}

Status DecodeFrameHeader(ByteSpan bytes, const ShardHeader& shard, uint64_t offset,
                         FrameHeader* frame) {
  const uint8_t* const in = bytes.data();
  const auto bad = [offset](const char* field, int at, const std::string& what) {
    return BadField(field, static_cast<int64_t>(offset) + at, what);
  };
  frame->frame_crc = Load32(in + 28);
  if (frame->frame_crc != FrameCrc(shard.uuid, offset, in))
    return bad("frame_crc", 28,
               "the frame header's checksum does not match: flipped bits, or a frame that was "
               "written elsewhere");
  frame->type = static_cast<FrameType>(Load32(in));
  frame->codec = static_cast<CodecId>(in[4]);
  frame->wrapping = static_cast<Wrapping>(in[5]);
  frame->payload_length = Load32(in + 8);
  frame->content_length = Load32(in + 12);
  frame->num_items = Load32(in + 16);
  frame->num_entries = Load32(in + 20);
  frame->payload_crc = Load32(in + 24);

  bool has_items = false;
  switch (frame->type) {
    case FrameType::kBlock:
    case FrameType::kSequences: has_items = true; break;
    case FrameType::kMetadata:
    case FrameType::kCommit:
    case FrameType::kIndex: break;
    default: return bad("type", 0, "not a frame type of version 1");
  }
  if (frame->wrapping > Wrapping::kLz4)
    return bad("wrapping", 5, std::to_string(in[5]) + " is not a wrapping of version 1");
  if (frame->wrapping == Wrapping::kLz4 &&
      ((shard.incompatible_features & kFeatureLz4Frames) == 0 ||
       frame->type == FrameType::kCommit || frame->type == FrameType::kIndex))
    return bad("wrapping", 5, "an LZ4-wrapped frame where none is allowed");
  if (Load16(in + 6) != 0) return bad("reserved", 6, "reserved bytes are not zero");
  if (frame->payload_length > kMaxFrameLength)
    return bad("payload_length", 8, std::to_string(frame->payload_length) + " is above 2^30");
  if (frame->content_length > kMaxFrameLength)
    return bad("content_length", 12, std::to_string(frame->content_length) + " is above 2^30");
  if (frame->wrapping == Wrapping::kNone && frame->content_length != frame->payload_length)
    return bad("content_length", 12, "differs from payload_length in a frame without wrapping");
  if (has_items != (frame->num_items > 0))
    return bad("num_items", 16, std::to_string(frame->num_items) + " in a frame of this type");
  if (frame->type != FrameType::kBlock) {
    if (in[4] != 0) return bad("codec", 4, "not zero in a frame that is not a block");
    if (frame->num_entries != 0)
      return bad("num_entries", 20, "not zero in a frame that is not a block");
  } else {
    if (!IsKnownCodec(frame->codec))
      return Status::Unsupported("block codec " + std::to_string(in[4]) +
                                 " is not known to this release: use a newer sparselogits")
          .Field("codec")
          .At(static_cast<int64_t>(offset) + 4);
    if (frame->num_items > (1u << shard.block_log2))
      return bad("num_items", 16,
                 std::to_string(frame->num_items) + " positions in a block of at most " +
                     std::to_string(1u << shard.block_log2));
  }
  if (frame->type == FrameType::kSequences &&
      uint64_t{frame->num_items} * 20 != frame->content_length)
    return bad("num_items", 16,
               std::to_string(frame->num_items) +
                   " sequences of 20 bytes are not content_length = " +
                   std::to_string(frame->content_length));
  if (frame->type == FrameType::kCommit && frame->content_length != kCommitLength)
    return bad("content_length", 12, "a commit has 32 bytes");
  if (frame->type == FrameType::kMetadata && frame->content_length > kMaxMetadataLength)
    return bad("content_length", 12, "the metadata is above the limit 2^20 bytes");
  return Status::Ok();
}

void EncodeCommit(const Totals& totals, uint32_t chain, uint8_t* out) {
  Store64(out, totals.num_positions);
  Store64(out + 8, totals.num_sequences);
  Store64(out + 16, totals.num_entries);
  Store32(out + 24, chain);
  Store32(out + 28, 0);
}

Status DecodeCommit(ByteSpan content, Totals* totals, uint32_t* chain) {
  totals->num_positions = Load64(content.data());
  totals->num_sequences = Load64(content.data() + 8);
  totals->num_entries = Load64(content.data() + 16);
  *chain = Load32(content.data() + 24);
  if (Load32(content.data() + 28) != 0)
    return BadField("reserved", 28, "reserved bytes are not zero");
  return Status::Ok();
}

void EncodeFooter(const Footer& footer, const Uuid& uuid, uint8_t* out) {
  std::memset(out, 0, kFooterLength);
  std::memcpy(out, kFooterMagic, sizeof(kFooterMagic));
  Store64(out + 8, footer.index_offset);
  Store64(out + 16, footer.file_length);
  Store64(out + 24, footer.totals.num_positions);
  Store64(out + 32, footer.totals.num_sequences);
  Store64(out + 40, footer.totals.num_entries);
  Store32(out + 48, footer.chain);
  Store32(out + 60, ExtendCrc32c(ExtendCrc32c(0, uuid.data(), uuid.size()), out, 60));
}

Status DecodeFooter(ByteSpan bytes, const Uuid& uuid, Footer* footer) {
  const uint8_t* const in = bytes.data();
  if (std::memcmp(in, kFooterMagic, sizeof(kFooterMagic)) != 0)
    return Status::Truncated("the file does not end with a footer: it was cut, or never finished")
        .Field("magic")
        .At(0);
  if (Load32(in + 60) != ExtendCrc32c(ExtendCrc32c(0, uuid.data(), uuid.size()), in, 60))
    return BadField("footer_crc", 60, "the footer's checksum does not match");
  footer->index_offset = Load64(in + 8);
  footer->file_length = Load64(in + 16);
  footer->totals = {Load64(in + 24), Load64(in + 32), Load64(in + 40)};
  footer->chain = Load32(in + 48);
  if (!AllZero(in + 52, 8)) return BadField("reserved", 52, "reserved bytes are not zero");
  if (footer->totals.num_positions > kMaxPositionsPerShard)
    return BadField("num_positions", 24, "above the limit 2^32 - 1");
  if (footer->totals.num_sequences > kMaxSequencesPerShard)
    return BadField("num_sequences", 32, "above the limit 2^28");
  return Status::Ok();
}

}  // namespace sparselogits
