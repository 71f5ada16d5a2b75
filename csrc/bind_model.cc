// sparselogits._core.CodecModel and train_model.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "arrays.h"
#include "bindings.h"
#include "convert.h"
#include "errors.h"
#include "sparselogits/compact_trainer.h"
#include "sparselogits/sequence_input.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

Model ParseBytes(const std::string& data) {
  ModelPtr model;
  WithoutGil([&] { return CompactModel::Parse(View(data), &model); });
  return Model(std::move(model));
}

Model Train(const ShardConfig& config, const InputArray<int64_t>& input_ids,
            const InputArray<int64_t>& offsets, const InputArray<int64_t>& token_ids,
            const std::optional<InputArray<int64_t>>& counts,
            const std::optional<InputArray<float>>& weights, uint32_t num_classes,
            uint64_t expected_positions) {
  const int64_t sequence_offsets[] = {0, static_cast<int64_t>(input_ids.size())};
  const uint64_t sequence_id = 0;
  SequenceInput input;
  input.input_ids = Span(input_ids);
  input.sequence_offsets = sequence_offsets;
  input.offsets = Span(offsets);
  input.token_ids = Span(token_ids);
  if (counts.has_value()) input.counts = Span(*counts);
  if (weights.has_value()) input.weights = Span(*weights);
  input.sequence_ids = {&sequence_id, 1};
  ModelPtr model;
  WithoutGil([&] {
    CanonicalSequences samples;
    SPARSELOGITS_RETURN_IF_ERROR(Canonicalise(input, config.format, &samples));
    TrainingOptions options;
    options.num_classes = num_classes;
    options.expected_positions = expected_positions;
    return TrainModel(config.format, samples.view(), options, &model);
  });
  return Model(std::move(model));
}

}  // namespace

void BindModel(py::module_& module) {
  py::class_<Model>(module, "CodecModel")
      .def_static("parse", &ParseBytes, py::arg("data"))
      .def("to_bytes", [](const Model& model) { return ToPython(model->bytes()); })
      .def_property_readonly("digest", [](const Model& model) { return model->digest(); })
      .def_property_readonly("file_name",
                             [](const Model& model) { return ModelFileName(model->digest()); })
      .def_property_readonly("vocab_size",
                             [](const Model& model) { return model->format().vocab_size; })
      .def_property_readonly("rounds", [](const Model& model) { return model->format().rounds; })
      .def_property_readonly("codes_tokens",
                             [](const Model& model) { return model->format().store_tokens; })
      .def_property_readonly("num_classes", [](const Model& model) { return model->num_classes(); })
      .def(
          "field_that_differs",
          [](const Model& model, const ShardConfig& config) -> std::optional<std::string> {
            const char* const field = FieldThatModelLacks(*model, config.format);
            return field == nullptr ? std::nullopt : std::optional<std::string>(field);
          },
          py::arg("config"));
  module.def("train_model", &Train, py::arg("config"), py::arg("input_ids").noconvert(),
             py::arg("offsets").noconvert(), py::arg("token_ids").noconvert(),
             py::arg("counts").noconvert(), py::arg("weights").noconvert(),
             py::arg("num_classes") = 0, py::arg("expected_positions") = 0);
}

}  // namespace sparselogits::python
