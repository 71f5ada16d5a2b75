// A few small models, trained on fixed samples: inputs name one by number, so that they stay of use
// when the model's file or the trainer change.
#pragma once

#include <array>
#include <memory>

#include "../cpp/random_block.h"
#include "fuzz_support.h"
#include "sparselogits/compact_codec.h"
#include "sparselogits/compact_trainer.h"

namespace sparselogits::fuzz {

struct FixedModel {
  RecordFormat format;
  uint32_t num_classes;
  size_t num_samples;  // few: many ids are in no list
};

inline constexpr auto kCounts = ValueKind::kCounts;
inline constexpr auto kWeights = ValueKind::kWeights;
inline constexpr FixedModel kFixedModels[] = {
    {{1000, 20, kCounts, WeightDtype::kNone, true}, 4, 100},
    {{1000, 20, kCounts, WeightDtype::kNone, false}, 1, 100},
    {{1000, 20, kWeights, WeightDtype::kFloat16, true}, 3, 100},
    {{1000, 20, kWeights, WeightDtype::kBfloat16, false}, 1, 100},
    {{1000, 20, kWeights, WeightDtype::kFloat32, true}, 1, 100},
    {{1, 1, kCounts, WeightDtype::kNone, true}, 1, 20},
    {{2, 65535, kCounts, WeightDtype::kNone, true}, 2, 20},
    {{40, 3, kCounts, WeightDtype::kNone, true}, 2, 60},
    {{49152, 50, kCounts, WeightDtype::kNone, true}, 20, 60},
    {{70000, 65535, kCounts, WeightDtype::kNone, true}, 2, 60},
};

// Trained when it is first asked for; any number names one. The codec of its own format.
inline const FixedModel& FormatOfModel(uint8_t number) {
  return kFixedModels[number % std::size(kFixedModels)];
}

inline const ModelPtr& ModelOf(uint8_t number) {
  static std::array<ModelPtr, std::size(kFixedModels)> models;
  ModelPtr& model = models[number % models.size()];
  if (model == nullptr) {
    const FixedModel& fixed = FormatOfModel(number);
    std::mt19937 random(number);
    const testing::RandomBlock samples(fixed.format, fixed.num_samples, 10, &random);
    TrainingOptions options;
    options.num_classes = fixed.num_classes;
    FUZZ_CHECK_OK(TrainModel(fixed.format, samples.view(), options, &model));
  }
  return model;
}

// Its encoder is made once, too.
inline const CompactCodec& CodecOf(uint8_t number) {
  static std::array<std::unique_ptr<CompactCodec>, std::size(kFixedModels)> codecs;
  std::unique_ptr<CompactCodec>& codec = codecs[number % codecs.size()];
  if (codec == nullptr)
    codec = std::make_unique<CompactCodec>(FormatOfModel(number).format, ModelOf(number));
  return *codec;
}

}  // namespace sparselogits::fuzz
