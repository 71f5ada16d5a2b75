// The compact codec against a slow decoder written from the specification: the same records, or
// both refuse. The content is arbitrary, or that of a block whose records the input tells, and then
// perhaps damaged.
#include "compact_checks.h"
#include "compact_models.h"

using namespace sparselogits;
using namespace sparselogits::fuzz;

namespace {

// One for each fixed model.
const SlowModel& SlowModelOf(uint8_t number) {
  static std::array<std::unique_ptr<SlowModel>, std::size(kFixedModels)> models;
  std::unique_ptr<SlowModel>& model = models[number % models.size()];
  if (model == nullptr) model = std::make_unique<SlowModel>(ModelOf(number)->content());
  return *model;
}

}  // namespace

// 3 bytes: the model, how the content comes about, num_positions - 1.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input({data, size});
  const uint8_t number = input.Byte();
  const uint8_t how = input.Byte() % 3;
  const uint32_t n = input.Byte() % kMaxScriptPositions + 1u;
  const RecordFormat& format = FormatOfModel(number).format;
  CompactChecks checks(CodecOf(number), format, SlowModelOf(number));
  if (how == 0) {
    const auto num_entries = static_cast<uint32_t>(input.Number(2));
    checks.CheckContent(input.rest(), n, num_entries);
    return 0;
  }
  const FlatBlock block = TakeBlock(format, n, &input);
  FUZZ_CHECK(checks.CheckEncoded(block));  // the trainer gives every symbol a code
  Bytes content;
  FUZZ_CHECK(CodecOf(number).Encode(block.view(format.value_kind), &content));
  if (how == 2) Damage(&input, &content);
  checks.CheckContent(content, n, block.num_entries());
  return 0;
}
