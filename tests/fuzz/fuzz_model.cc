// A codec model from nowhere: refused, or it decodes any content as the slow decoder does, and what
// is encoded with it comes back; memory follows from the size. The bytes are arbitrary, or those of
// a model that was trained and then damaged, or those of one that the input describes.
#include "allocation_guard.h"
#include "compact_checks.h"
#include "compact_models.h"
#include "model_script.h"

using namespace sparselogits;
using namespace sparselogits::fuzz;

namespace {

// The largest allocation that a model of this size can ask for: a bit for each id of the
// vocabulary; 256 codes of 2^12 entries, in an array that doubles; records of 65,535 entries. What
// encoding takes is for the encoder's user: nothing is encoded with a model that is not trusted.
size_t AllocationLimit(uint32_t vocab_size, size_t size) {
  return vocab_size / 8 + (size_t{8} << 20) + 128 * size;
}

ByteSpan TakePart(Input* input, size_t length) {
  const ByteSpan part = input->rest().first(std::min(length, input->rest().size()));
  input->Skip(part.size());
  return part;
}

Bytes TakeModel(uint8_t how, Input* input) {
  if (how == 0) {
    const auto length = static_cast<size_t>(input->Number(2));
    const ByteSpan part = TakePart(input, length);
    return {part.begin(), part.end()};
  }
  if (how == 1) {
    Bytes bytes = ModelOf(input->Byte())->bytes();
    Damage(input, &bytes);
    return bytes;
  }
  return EncodeModel(TakeModelContent(input));
}

}  // namespace

// 2 bytes: how the model comes about, num_positions - 1.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input({data, size});
  const uint8_t how = input.Byte() % 3;
  const uint32_t n = input.Byte() % kMaxScriptPositions + 1u;
  const Bytes bytes = TakeModel(how, &input);
  ModelPtr model;
  {
    const AllocationGuard guard;
    const Status status = CompactModel::Parse(bytes, &model);
    const uint32_t vocab_size = bytes.size() < 16 ? 0 : Load32(bytes.data() + 12);
    FUZZ_CHECK(guard.largest() <= AllocationLimit(vocab_size, bytes.size()));
    FUZZ_CHECK(status.ok() || how != 2);
    if (!status.ok()) {
      FUZZ_CHECK(model == nullptr && !status.field().empty());
      FUZZ_CHECK(status.offset() >= 0 && status.offset() <= static_cast<int64_t>(bytes.size()));
      return 0;
    }
  }
  FUZZ_CHECK(EncodeModel(model->content()) == bytes);
  const RecordFormat& format = model->format();
  const CompactCodec codec(format, model);
  {
    const PaddedCopy content(input.rest());
    const AllocationGuard guard;
    RecordBatch batch;
    static_cast<void>(codec.Decode(content.span(), n, 0, n, &batch, nullptr));
    FUZZ_CHECK(guard.largest() <= AllocationLimit(format.vocab_size, input.rest().size()));
  }
  if (format.vocab_size > 1u << 17) return 0;  // an encoder has a row for each id
  const SlowModel slow(model->content());
  CompactChecks checks(codec, format, slow);
  checks.CheckContent(input.rest(), n, 0);
  const FlatBlock block = TakeBlock(format, n, &input);
  if (!checks.CheckEncoded(block)) return 0;
  Bytes content;
  FUZZ_CHECK(codec.Encode(block.view(format.value_kind), &content));
  Damage(&input, &content);
  checks.CheckContent(content, n, block.num_entries());
  return 0;
}
