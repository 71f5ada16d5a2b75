// sparselogits._core.sample_rows: arguments are checked in sampling.py, logits in the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "sparselogits/sampler.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

SamplerKind ParseSampler(const std::string& name) {
  if (name == "multinomial") return SamplerKind::kMultinomial;
  if (name == "systematic") return SamplerKind::kSystematic;
  if (name == "stratified") return SamplerKind::kStratified;
  ThrowIfError(Status::InvalidArgument("no sampler is called \"" + name + "\""));
  return SamplerKind::kMultinomial;  // not reached
}

// An array over the memory of a vector, which it keeps alive.
template <typename T>
py::array_t<T> ToArray(std::vector<T>&& vector) {
  auto owner = std::make_unique<std::vector<T>>(std::move(vector));
  const auto size = static_cast<py::ssize_t>(owner->size());
  T* const data = owner->data();
  const py::capsule capsule(owner.get(),
                            [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  owner.release();
  return py::array_t<T>(size, data, capsule);
}

// uint16 holds the bits of bfloat16, which NumPy lacks.
LogitDtype DtypeOf(const py::array& logits) {
  if (py::isinstance<py::array_t<float>>(logits)) return LogitDtype::kFloat32;
  if (py::isinstance<py::array_t<uint16_t>>(logits)) return LogitDtype::kBfloat16;
  if (logits.dtype().kind() == 'f' && logits.itemsize() == 2) return LogitDtype::kFloat16;
  throw py::type_error("logits must be float32, float16, or uint16 for the bits of bfloat16");
}

py::tuple SampleRows(const py::array& logits, const py::array_t<uint64_t>& keys, int rounds,
                     const std::string& sampler, float temperature, float proposal_temperature,
                     uint64_t seed, uint64_t offset, bool self_normalize, int num_threads) {
  const LogitDtype dtype = DtypeOf(logits);
  const py::ssize_t size = logits.itemsize();
  if (logits.ndim() != 2 || logits.strides(0) % size != 0 ||
      (logits.size() > 0 && logits.shape(1) > 1 && logits.strides(1) != size)) {
    throw py::value_error("logits must have two dimensions and rows without gaps");
  }
  if (keys.ndim() != 2 || keys.shape(0) != logits.shape(0) || keys.shape(1) != 2 ||
      (keys.flags() & py::array::c_style) == 0) {
    throw py::value_error("position_keys must be (rows, 2) and C-contiguous");
  }
  static_assert(sizeof(PositionKey) == 2 * sizeof(uint64_t));
  const LogitRows rows = {logits.data(), dtype, logits.shape(0), logits.shape(1),
                          logits.strides(0) / size};
  const auto* position_keys = reinterpret_cast<const PositionKey*>(keys.data());
  SampleOptions options;
  options.rounds = rounds;
  options.sampler = ParseSampler(sampler);
  options.temperature = temperature;
  options.proposal_temperature = proposal_temperature;
  options.self_normalize = self_normalize;
  options.seed = seed;
  options.offset = offset;
  options.num_threads = num_threads;

  Draws draws;
  WithoutGil([&] { return Sample(rows, position_keys, options, &draws); });
  const bool weighted = proposal_temperature != 1.0f;
  return py::make_tuple(
      ToArray(std::move(draws.offsets)), ToArray(std::move(draws.token_ids)),
      weighted ? py::object(py::none()) : py::object(ToArray(std::move(draws.counts))),
      weighted ? py::object(ToArray(std::move(draws.weights))) : py::object(py::none()));
}

}  // namespace

void BindSampler(py::module_& module) {
  module.def("sample_rows", &SampleRows, py::arg("logits").noconvert(),
             py::arg("position_keys").noconvert(), py::kw_only(), py::arg("rounds"),
             py::arg("sampler"), py::arg("temperature"), py::arg("proposal_temperature"),
             py::arg("seed"), py::arg("offset"), py::arg("self_normalize"), py::arg("num_threads"));
}

}  // namespace sparselogits::python
