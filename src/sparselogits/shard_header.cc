// The header of a shard (formats/v1.md section 3.1), and the configuration that it repeats.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "sparselogits/crc32c.h"
#include "sparselogits/layout_checks.h"
#include "sparselogits/shard_layout.h"

namespace sparselogits {
namespace {

constexpr uint8_t kHeaderMagic[8] = {0x89, 'S', 'L', 'C', '\r', '\n', 0x1A, '\n'};

bool IsSamplerName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxSamplerLength &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
         });
}

// Of bytes that may be anything: what is not printable ASCII becomes \xNN.
std::string Quoted(const std::string& name) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : name) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7F)
      out += c;
    else
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
  }
  return out + "'";
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
    *what = Quoted(config.sampler) + " is not 1 to 16 characters of a-z 0-9 _ -";
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
  if ((header->model_digest != 0) != ((header->incompatible_features & kFeatureCodecModel) != 0))
    return BadField("model_digest", 96, "a digest without the feature codec_model, or the reverse");
  if (header->block_log2 < kMinBlockLog2 || header->block_log2 > kMaxBlockLog2)
    return BadField("block_log2", 51, std::to_string(in[51]) + " is outside 6 ... 16");
  if (in[52] > 1) return BadField("store_tokens", 52, std::to_string(in[52]) + " is not 0 or 1");
  config->format.store_tokens = in[52] == 1;
  if (!AllZero(in + 53, 3)) return BadField("reserved", 53, "reserved bytes are not zero");
  if (!AllZero(in + 104, 20)) return BadField("reserved", 104, "reserved bytes are not zero");
  return Status::Ok();
}

}  // namespace sparselogits
