// sparselogits._core.ShardConfig: what every shard of a cache repeats.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>

#include "bindings.h"
#include "errors.h"
#include "sparselogits/shard_layout.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

constexpr std::array kValueKinds = {"counts", "weights"};
constexpr std::array kWeightDtypes = {"none", "float32", "float16", "bfloat16"};
constexpr std::array kCodecs = {"packed", "compact"};

template <typename Enum, size_t N>
Enum ParseName(const char* field, const std::array<const char*, N>& names,
               const std::string& name) {
  for (size_t i = 0; i < N; ++i)
    if (name == names[i]) return static_cast<Enum>(i);
  ThrowIfError(Status::InvalidArgument(std::string(field) + ": '" + name + "' is not known"));
  return {};
}

template <typename Enum, size_t N>
const char* Name(const std::array<const char*, N>& names, Enum value) {
  return names[static_cast<size_t>(value)];
}

ShardConfig MakeConfig(uint32_t vocab_size, uint32_t rounds, const std::string& sampler,
                       double temperature, double proposal_temperature,
                       const std::string& value_kind,
                       const std::optional<std::string>& weight_dtype, const std::string& codec,
                       bool store_tokens, uint64_t tokenizer_fingerprint) {
  ShardConfig config;
  config.format.vocab_size = vocab_size;
  config.format.rounds = rounds;
  config.format.value_kind = ParseName<ValueKind>("value_kind", kValueKinds, value_kind);
  if (config.format.value_kind == ValueKind::kWeights)
    config.format.weight_dtype =
        ParseName<WeightDtype>("weight_dtype", kWeightDtypes, weight_dtype.value_or("float32"));
  config.format.store_tokens = store_tokens;
  config.codec = ParseName<CodecId>("codec", kCodecs, codec);
  config.sampler = sampler;
  config.temperature = temperature;
  config.proposal_temperature = proposal_temperature;
  config.tokenizer_fingerprint = tokenizer_fingerprint;
  ThrowIfError(CheckConfig(config));
  return config;
}

py::dict ToDict(const ShardConfig& config) {
  py::dict dict;
  dict["vocab_size"] = config.format.vocab_size;
  dict["rounds"] = config.format.rounds;
  dict["sampler"] = config.sampler;
  dict["temperature"] = config.temperature;
  dict["proposal_temperature"] = config.proposal_temperature;
  dict["value_kind"] = Name(kValueKinds, config.format.value_kind);
  if (config.format.value_kind == ValueKind::kWeights)
    dict["weight_dtype"] = Name(kWeightDtypes, config.format.weight_dtype);
  else
    dict["weight_dtype"] = py::none();
  dict["codec"] = Name(kCodecs, config.codec);
  dict["store_tokens"] = config.format.store_tokens;
  dict["tokenizer_fingerprint"] = config.tokenizer_fingerprint;
  return dict;
}

}  // namespace

void BindConfig(py::module_& module) {
  py::class_<ShardConfig>(module, "ShardConfig")
      .def(py::init(&MakeConfig), py::kw_only(), py::arg("vocab_size"), py::arg("rounds"),
           py::arg("sampler"), py::arg("temperature"), py::arg("proposal_temperature"),
           py::arg("value_kind"), py::arg("weight_dtype"), py::arg("codec"),
           py::arg("store_tokens"), py::arg("tokenizer_fingerprint"))
      .def("to_dict", &ToDict)
      .def("__eq__", [](const ShardConfig& a, const ShardConfig& b) { return a == b; });
}

}  // namespace sparselogits::python
