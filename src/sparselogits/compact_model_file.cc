// A codec model as a file (formats/v1.md section 13): written, and read as bytes that may be
// anything.
#include <cstring>
#include <utility>

#include "sparselogits/bit_reader.h"
#include "sparselogits/bit_writer.h"
#include "sparselogits/compact_model.h"
#include "sparselogits/layout_checks.h"
#include "sparselogits/limits.h"

namespace sparselogits {
namespace {

using compact::Family;
using compact::FamilyShape;

constexpr uint8_t kMagic[8] = {0x89, 'S', 'L', 'M', '\r', '\n', 0x1A, '\n'};
constexpr uint16_t kModelVersion = 1;
constexpr int kIdCountBits = 25;
constexpr int kBucketCountBits = 9;
constexpr int kBucketBits = 5;
constexpr int kHazardBits = 7;
constexpr int kLengthBits = 4;
constexpr int kRunBits = 6;  // of symbols without a code
constexpr int kTableCountBits = 9;

int MapBits(size_t num_tables) { return static_cast<int>(std::bit_width(num_tables - 1)); }

// Takes fields from bytes that may end anywhere.
class FieldReader {
 public:
  explicit FieldReader(ByteSpan bytes) : bytes_(bytes) {
    padded_.assign(bytes.begin(), bytes.end());
    padded_.resize(bytes.size() + kReadPadding);
  }

  // REQUIRES: width <= 32. What is behind the end reads as zero.
  uint32_t Take(int width) {
    const uint64_t end = bytes_.size() * 8;
    if (bit_ + static_cast<uint64_t>(width) > end) {
      is_exhausted_ = true;
      bit_ = end;
      return 0;
    }
    const auto value = static_cast<uint32_t>(LowBits(PeekBits(padded_.data(), bit_), width));
    bit_ += static_cast<uint64_t>(width);
    return value;
  }
  uint64_t bits_left() const { return bytes_.size() * 8 - bit_; }
  bool is_exhausted() const { return is_exhausted_; }

  Status Bad(const char* field, std::string what) const {
    if (is_exhausted_)
      return Status::Truncated("the model ends inside this field").Field(field).At(offset());
    return Status::Corruption(std::move(what)).Field(field).At(offset());
  }
  int64_t offset() const { return static_cast<int64_t>(kModelHeaderLength + bit_ / 8); }

 private:
  ByteSpan bytes_;
  Bytes padded_;
  uint64_t bit_ = 0;
  bool is_exhausted_ = false;
};

void PutIds(const std::vector<uint32_t>& ids, int width, BitWriter* writer) {
  writer->Put(ids.size(), kIdCountBits);
  for (const uint32_t id : ids) writer->Put(id, width);
}

Status TakeIds(const char* field, uint32_t vocab_size, FieldReader* reader, std::vector<bool>* seen,
               std::vector<uint32_t>* ids) {
  const int width = packed::TokenBits(vocab_size);
  const uint32_t n = reader->Take(kIdCountBits);
  if (reader->is_exhausted() || n > vocab_size ||
      n > reader->bits_left() / static_cast<uint64_t>(width))
    return reader->Bad(field, std::to_string(n) + " ids are more than the vocabulary or the file");
  ids->resize(n);
  for (uint32_t& id : *ids) {
    id = reader->Take(width);
    if (id >= vocab_size)
      return reader->Bad(field, "id " + std::to_string(id) + " is above the limit vocab_size - 1");
    if ((*seen)[id]) return reader->Bad(field, "id " + std::to_string(id) + " is listed twice");
    (*seen)[id] = true;
  }
  for (const uint32_t id : *ids) (*seen)[id] = false;
  return Status::Ok();
}

// Buckets of powers of two that cover a list: each starts inside it, and only the last may be
// larger than what is left, by less than twice.
Status TakeBuckets(const char* field, size_t num_ids, FieldReader* reader,
                   std::vector<uint8_t>* bits) {
  bits->resize(reader->Take(kBucketCountBits));
  if (reader->is_exhausted() || bits->size() > compact::kMaxBuckets)
    return reader->Bad(field, std::to_string(bits->size()) + " buckets are above the limit 256");
  uint64_t covered = 0;
  for (uint8_t& b : *bits) {
    b = static_cast<uint8_t>(reader->Take(kBucketBits));
    const uint64_t left = num_ids - std::min<uint64_t>(covered, num_ids);
    if (b > compact::kMaxIdBits || left == 0 || (uint64_t{1} << b) >= 2 * left)
      return reader->Bad(field, "a bucket of 2^" + std::to_string(b) + " ids where " +
                                    std::to_string(left) + " are left");
    covered += uint64_t{1} << b;
  }
  if (covered < num_ids) return reader->Bad(field, "the buckets do not cover their list");
  return Status::Ok();
}

void PutLengths(const std::vector<uint8_t>& lengths, BitWriter* writer) {
  for (size_t s = 0; s < lengths.size();) {
    writer->Put(lengths[s], kLengthBits);
    if (lengths[s++] > 0) continue;
    size_t run = 0;  // of further symbols without a code
    while (s < lengths.size() && lengths[s] == 0 && run < (1u << kRunBits) - 1) ++run, ++s;
    writer->Put(run, kRunBits);
  }
}

Status TakeLengths(const FamilyShape& shape, FieldReader* reader, std::vector<uint8_t>* lengths) {
  while (lengths->size() < shape.num_symbols) {
    lengths->push_back(static_cast<uint8_t>(reader->Take(kLengthBits)));
    if (lengths->back() > 0) continue;
    lengths->resize(lengths->size() + reader->Take(kRunBits), 0);
    if (reader->is_exhausted()) break;
  }
  if (reader->is_exhausted() || lengths->size() > shape.num_symbols)
    return reader->Bad("code_lengths", "more code lengths than symbols");
  for (const uint8_t length : *lengths)
    if (length > shape.width)
      return reader->Bad("code_lengths", "a code of " + std::to_string(length) +
                                             " bits is above the limit " +
                                             std::to_string(shape.width));
  if (!IsCompleteCode(*lengths)) return reader->Bad("code_lengths", "not a complete prefix code");
  return Status::Ok();
}

void PutFamily(const CodeFamily& family, BitWriter* writer) {
  writer->Put(family.lengths.size(), kTableCountBits);
  for (const uint8_t code : family.map) writer->Put(code, MapBits(family.lengths.size()));
  for (const auto& lengths : family.lengths) PutLengths(lengths, writer);
}

Status TakeFamily(const FamilyShape& shape, FieldReader* reader, CodeFamily* family) {
  const uint32_t n = reader->Take(kTableCountBits);
  if (n < 1 || n > compact::kMaxTables)
    return reader->Bad("codes", std::to_string(n) + " codes are outside 1 ... 256");
  family->map.resize(shape.num_contexts);
  for (uint8_t& code : family->map) {
    code = static_cast<uint8_t>(reader->Take(MapBits(n)));
    if (code >= n) return reader->Bad("code_map", "a context names a code that is not there");
  }
  family->lengths.resize(n);
  for (auto& lengths : family->lengths)
    SPARSELOGITS_RETURN_IF_ERROR(TakeLengths(shape, reader, &lengths));
  return Status::Ok();
}

Status TakeClass(const RecordFormat& format, size_t num_global, FieldReader* reader,
                 std::vector<bool>* seen, ModelContent::Class* c) {
  SPARSELOGITS_RETURN_IF_ERROR(TakeIds("class_ids", format.vocab_size, reader, seen, &c->ids));
  SPARSELOGITS_RETURN_IF_ERROR(TakeBuckets("class_buckets", c->ids.size(), reader, &c->own_bits));
  SPARSELOGITS_RETURN_IF_ERROR(TakeBuckets("global_buckets", num_global, reader, &c->global_bits));
  if (c->num_buckets() > compact::kMaxBuckets)
    return reader->Bad("class_buckets", std::to_string(c->num_buckets()) +
                                            " buckets of a class are above the limit 256");
  c->hazards.resize(c->num_buckets());
  for (uint8_t& hazard : c->hazards) hazard = static_cast<uint8_t>(reader->Take(kHazardBits));
  return Status::Ok();
}

Status TakeHeader(ByteSpan bytes, RecordFormat* format, uint32_t* num_classes) {
  if (bytes.size() < kModelHeaderLength)
    return Status::Truncated("a model of " + std::to_string(bytes.size()) +
                             " bytes, fewer than a header")
        .Field("header")
        .At(0);
  if (bytes.size() > kMaxModelLength)
    return BadField("header", 0, std::to_string(bytes.size()) + " bytes are above the limit 2^26");
  const uint8_t* const in = bytes.data();
  if (std::memcmp(in, kMagic, sizeof(kMagic)) != 0)
    return BadField("magic", 0, "not a sparselogits codec model");
  if (Load16(in + 8) != kModelVersion)
    return Status::Unsupported("codec model version " + std::to_string(Load16(in + 8)) +
                               "; this release reads version 1: use a newer sparselogits")
        .Field("version")
        .At(8);
  format->vocab_size = Load32(in + 12);
  format->rounds = Load32(in + 16);
  format->value_kind = static_cast<ValueKind>(in[20]);
  format->weight_dtype = static_cast<WeightDtype>(in[21]);
  format->store_tokens = in[22] == 1;
  *num_classes = Load16(in + 24);
  if (format->vocab_size < 1 || format->vocab_size > kMaxVocabSize)
    return BadField("vocab_size", 12,
                    std::to_string(format->vocab_size) + " is outside 1 ... 2^24");
  if (format->rounds < 1 || format->rounds > kMaxRounds)
    return BadField("rounds", 16, std::to_string(format->rounds) + " is outside 1 ... 65535");
  if (in[20] > 1) return BadField("value_kind", 20, std::to_string(in[20]) + " is not 0 or 1");
  if ((in[20] == 0) != (in[21] == 0) || in[21] > 3)
    return BadField("weight_dtype", 21,
                    std::to_string(in[21]) + " is not a weight dtype of this value kind");
  if (in[22] > 1) return BadField("codes_tokens", 22, std::to_string(in[22]) + " is not 0 or 1");
  if (*num_classes < 1 || *num_classes > compact::kMaxClasses)
    return BadField("num_classes", 24, std::to_string(*num_classes) + " is outside 1 ... 256");
  const std::pair<int, size_t> reserved[] = {{10, 2}, {23, 1}, {26, 6}};
  for (const auto& [at, length] : reserved)
    if (!AllZero(in + at, length)) return BadField("reserved", at, "reserved bytes are not zero");
  return Status::Ok();
}

}  // namespace

Bytes EncodeModel(const ModelContent& content) {
  Bytes out(kModelHeaderLength, 0);
  std::memcpy(out.data(), kMagic, sizeof(kMagic));
  Store16(out.data() + 8, kModelVersion);
  Store32(out.data() + 12, content.format.vocab_size);
  Store32(out.data() + 16, content.format.rounds);
  out[20] = static_cast<uint8_t>(content.format.value_kind);
  out[21] = static_cast<uint8_t>(content.format.weight_dtype);
  out[22] = content.format.store_tokens ? 1 : 0;
  Store16(out.data() + 24, static_cast<uint16_t>(content.classes.size()));
  const int width = packed::TokenBits(content.format.vocab_size);
  BitWriter writer(&out);
  PutIds(content.global_ids, width, &writer);
  for (const auto& c : content.classes) {
    PutIds(c.ids, width, &writer);
    for (const auto* bits : {&c.own_bits, &c.global_bits}) {
      writer.Put(bits->size(), kBucketCountBits);
      for (const uint8_t b : *bits) writer.Put(b, kBucketBits);
    }
    for (const uint8_t hazard : c.hazards) writer.Put(hazard, kHazardBits);
  }
  for (size_t f = 0; f < compact::kNumFamilies; ++f)
    if (ShapeOf(static_cast<Family>(f), content.format, content.num_classes()).is_used())
      PutFamily(content.families[f], &writer);
  writer.Align();
  return out;
}

Status ParseModel(ByteSpan bytes, ModelContent* content) {
  uint32_t num_classes = 0;
  SPARSELOGITS_RETURN_IF_ERROR(TakeHeader(bytes, &content->format, &num_classes));
  FieldReader reader(bytes.subspan(kModelHeaderLength));
  const RecordFormat& format = content->format;
  std::vector<bool> seen(format.vocab_size);
  SPARSELOGITS_RETURN_IF_ERROR(
      TakeIds("global_ids", format.vocab_size, &reader, &seen, &content->global_ids));
  for (uint32_t c = 0; c < num_classes; ++c)
    SPARSELOGITS_RETURN_IF_ERROR(TakeClass(format, content->global_ids.size(), &reader, &seen,
                                           &content->classes.emplace_back()));
  for (size_t f = 0; f < compact::kNumFamilies; ++f) {
    const FamilyShape shape = ShapeOf(static_cast<Family>(f), format, num_classes);
    if (shape.is_used())
      SPARSELOGITS_RETURN_IF_ERROR(TakeFamily(shape, &reader, &content->families[f]));
  }
  const uint64_t left = reader.bits_left();
  if (left >= 8 || reader.Take(static_cast<int>(left)) != 0)
    return reader.Bad("padding", "the model does not end with its last field");
  return Status::Ok();
}

}  // namespace sparselogits
