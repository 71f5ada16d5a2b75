// Model files: written and read back; whatever the bytes are, they are refused or give a model that
// decodes without a fault, and a short file cannot ask for much memory.
#include "allocation_guard.h"
#include "compact_blocks.h"
#include "sparselogits/bit_writer.h"
#include "sparselogits/limits.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

constexpr RecordFormat kCounts{40, 3, ValueKind::kCounts, WeightDtype::kNone, true};
constexpr RecordFormat kWeights{40, 3, ValueKind::kWeights, WeightDtype::kBfloat16, false};

Status Parse(const Bytes& bytes, ModelPtr* model) {
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  return CompactModel::Parse({exact.get(), bytes.size()}, model);
}

void CheckRefused(const Status& status, size_t size) {
  CHECK(status.code() == StatusCode::kCorruption || status.code() == StatusCode::kTruncated ||
        status.code() == StatusCode::kUnsupported);
  CHECK(!status.field().empty());
  CHECK(status.offset() >= 0 && status.offset() <= static_cast<int64_t>(size));
}

// Decodes content that was not made with this model, and encodes with it.
void Use(const ModelPtr& model, const Bytes& content, std::mt19937* random) {
  const RecordFormat& format = model->format();
  if (format.vocab_size > 1u << 16) return;  // blocks would not be small
  const CompactCodec codec(format, model);
  const Decoded found(codec, format, Content(content).span(), 20, 0, 20);
  if (found.status.ok()) CheckValid(format, found.batch, found.tokens);
  const RandomBlock block(format, 20, 10, random);
  Bytes encoded;
  if (!codec.Encode(block.view(), &encoded)) return;
  CheckDecodes(codec, format, block, Content(encoded).span(), 0, 20);
}

// The header of a model, to put fields behind.
Bytes Header(uint32_t vocab_size, uint32_t num_classes) {
  ModelContent content;
  content.format = {vocab_size, 50, ValueKind::kCounts, WeightDtype::kNone, true};
  Bytes bytes = EncodeModel(content);
  bytes.resize(kModelHeaderLength);
  Store16(bytes.data() + 24, static_cast<uint16_t>(num_classes));
  return bytes;
}

}  // namespace

TEST(models_of_every_format_round_trip) {
  std::mt19937 random(1);
  for (const RecordFormat& format : MostFormats())
    for (const uint32_t num_classes : {1u, 3u}) {
      const ModelPtr model = TrainOnRandom(format, 100, num_classes, &random);
      ModelPtr again;
      CHECK_OK(Parse(model->bytes(), &again));
      CHECK(EncodeModel(again->content()) == model->bytes());
      CHECK(again->format() == format);
      CHECK_EQ(again->digest(), model->digest());
      const RandomBlock block(format, 40, 10, &random);
      CHECK(Encoded(CompactCodec(format, again), block) ==
            Encoded(CompactCodec(format, model), block));
    }
}

TEST(a_model_that_is_cut_anywhere_is_refused) {
  std::mt19937 random(2);
  for (const RecordFormat& format : {kCounts, kWeights}) {
    const Bytes bytes = TrainOnRandom(format, 100, 2, &random)->bytes();
    for (size_t length = 0; length < bytes.size(); ++length) {
      ModelPtr model;
      const Status status =
          Parse(Bytes(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length)), &model);
      CheckRefused(status, length);
      CHECK(model == nullptr);
    }
    Bytes longer = bytes;
    longer.push_back(0);
    ModelPtr model;
    CheckRefused(Parse(longer, &model), longer.size());
  }
}

TEST(every_flipped_bit_is_refused_or_gives_a_model_that_can_be_used) {
  std::mt19937 random(3);
  for (const RecordFormat& format : {kCounts, kWeights}) {
    const ModelPtr model = TrainOnRandom(format, 100, 2, &random);
    const Bytes content =
        Encoded(CompactCodec(format, model), RandomBlock(format, 20, 10, &random));
    Bytes bytes = model->bytes();
    int refused = 0, used = 0;
    for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
      ModelPtr changed;
      const Status status = Parse(bytes, &changed);
      bytes[bit / 8] ^= static_cast<uint8_t>(1u << bit % 8);
      if (!status.ok()) {
        CheckRefused(status, bytes.size());
        ++refused;
        continue;
      }
      CHECK(changed->digest() != model->digest());
      Use(changed, content, &random);
      ++used;
    }
    CHECK(refused > 100);
    CHECK(used > 100);
  }
}

TEST(mutated_models_are_survived) {
  std::mt19937 random(4);
  for (const RecordFormat& format : {kCounts, kWeights}) {
    const ModelPtr model = TrainOnRandom(format, 100, 3, &random);
    const Bytes content =
        Encoded(CompactCodec(format, model), RandomBlock(format, 20, 10, &random));
    for (int round = 0; round < 3000; ++round) {
      Bytes bytes = model->bytes();
      for (uint32_t changes = 1 + random() % 3; changes > 0; --changes)
        bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
      ModelPtr changed;
      const Status status = Parse(bytes, &changed);
      if (status.ok())
        Use(changed, content, &random);
      else
        CheckRefused(status, bytes.size());
    }
  }
}

// The reader sees numbers before what they count: none of them may be believed.
TEST(a_short_model_cannot_ask_for_much_memory) {
  constexpr size_t kMost = (kMaxVocabSize / 8) + (1u << 20);  // a bit for each id, and tables
  for (const uint32_t vocab_size : {2u, 49152u, kMaxVocabSize})
    for (const uint32_t num_classes : {1u, 256u})
      for (const uint8_t fill : {0x00, 0xFF, 0x55})
        for (const size_t length : {0u, 4u, 5u, 100u, 4000u}) {
          Bytes bytes = Header(vocab_size, num_classes);
          bytes.resize(bytes.size() + length, fill);
          const fuzz::AllocationGuard guard;
          ModelPtr model;
          const Status status = CompactModel::Parse(bytes, &model);
          CHECK(guard.largest() <= kMost);
          CheckRefused(status, bytes.size());
        }
}

TEST(numbers_beyond_their_limit_are_refused) {
  const auto parse = [](uint32_t vocab_size, const auto& put) {
    Bytes bytes = Header(vocab_size, 1);
    BitWriter writer(&bytes);
    put(&writer);
    for (int i = 0; i < 1000; ++i) writer.Put(0, 8);
    writer.Align();
    ModelPtr model;
    const Status status = CompactModel::Parse(bytes, &model);
    CHECK(!status.ok());
    return std::string(status.field());
  };
  CHECK_EQ(parse(100, [](BitWriter* w) { w->Put(101, 25); }), "global_ids");
  CHECK_EQ(parse(kMaxVocabSize, [](BitWriter* w) { w->Put((1 << 25) - 1, 25); }), "global_ids");
  CHECK_EQ(parse(100, [](BitWriter* w) { w->Put(1, 25), w->Put(100, 7); }), "global_ids");
  CHECK_EQ(parse(100, [](BitWriter* w) { w->Put(2, 25), w->Put(9, 7), w->Put(9, 7); }),
           "global_ids");
  CHECK_EQ(parse(100, [](BitWriter* w) { w->Put(0, 25), w->Put(101, 25); }), "class_ids");
  const auto no_ids = [](BitWriter* w) { w->Put(0, 25), w->Put(0, 25); };
  CHECK_EQ(parse(100, [&](BitWriter* w) { no_ids(w), w->Put(1, 9); }), "class_buckets");
  CHECK_EQ(parse(100, [&](BitWriter* w) { no_ids(w), w->Put(0, 9), w->Put(1, 9); }),
           "global_buckets");
  CHECK_EQ(parse(100, [&](BitWriter* w) { no_ids(w), w->Put(257, 9); }), "class_buckets");
  const auto one_id = [](BitWriter* w) {
    w->Put(1, 25), w->Put(5, 7), w->Put(0, 25), w->Put(0, 9);
  };
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_id(w), w->Put(0, 9); }), "global_buckets");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_id(w), w->Put(1, 9), w->Put(1, 5); }),
           "global_buckets");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_id(w), w->Put(1, 9), w->Put(31, 5); }),
           "global_buckets");
  const auto one_bucket = [&](BitWriter* w) {
    no_ids(w), w->Put(0, 9), w->Put(0, 9), w->Put(0, 7);
  };
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_bucket(w), w->Put(0, 9); }), "codes");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_bucket(w), w->Put(257, 9); }), "codes");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_bucket(w), w->Put(3, 9), w->Put(3, 2); }),
           "code_map");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_bucket(w), w->Put(1, 9), w->Put(12, 4); }),
           "code_lengths");
  CHECK_EQ(parse(100, [&](BitWriter* w) { one_bucket(w), w->Put(1, 9), w->Put(2, 4); }),
           "code_lengths");
}

TEST(headers_are_refused_by_field) {
  std::mt19937 random(5);
  const Bytes bytes = TrainOnRandom(kCounts, 10, 1, &random)->bytes();
  const auto field_at = [&bytes](size_t at, uint8_t value) {
    Bytes changed = bytes;
    changed[at] = value;
    ModelPtr model;
    const Status status = CompactModel::Parse(changed, &model);
    CHECK(!status.ok());
    return std::string(status.field());
  };
  CHECK_EQ(field_at(0, 0), "magic");
  CHECK_EQ(field_at(8, 2), "version");
  CHECK_EQ(field_at(10, 1), "reserved");
  CHECK_EQ(field_at(12, 0), "vocab_size");
  CHECK_EQ(field_at(15, 255), "vocab_size");
  CHECK_EQ(field_at(18, 1), "rounds");
  CHECK_EQ(field_at(20, 2), "value_kind");
  CHECK_EQ(field_at(21, 1), "weight_dtype");
  CHECK_EQ(field_at(22, 2), "codes_tokens");
  CHECK_EQ(field_at(23, 1), "reserved");
  CHECK_EQ(field_at(24, 0), "num_classes");
  CHECK_EQ(field_at(25, 2), "num_classes");
  CHECK_EQ(field_at(31, 1), "reserved");
}

TEST(a_models_file_is_named_by_its_digest) {
  CHECK_EQ(ModelFileName(0xAB), "model-00000000000000ab.slm");
}

int main() { return sparselogits::testing::RunAll(); }
