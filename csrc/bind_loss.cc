// sparselogits._core.sparse_loss_rows, the losses' arithmetic on arrays in host memory, and
// advise_huge_pages for what it writes.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <string>

#include "arrays.h"
#include "bindings.h"
#include "errors.h"
#include "sparselogits/huge_pages.h"
#include "sparselogits/loss_rows.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

// uint16 holds the bits of bfloat16, which NumPy lacks.
LossDtype DtypeOf(const py::array& logits) {
  if (py::isinstance<py::array_t<float>>(logits)) return LossDtype::kFloat32;
  if (py::isinstance<py::array_t<uint16_t>>(logits)) return LossDtype::kBfloat16;
  throw py::type_error("logits must be float32, or uint16 for the bits of bfloat16");
}

py::array_t<float> LossOfRows(const py::array& logits, const InputArray<int64_t>& offsets,
                              const InputArray<int64_t>& token_ids,
                              const InputArray<float>& weights, const InputArray<bool>& keep,
                              std::optional<py::array> gradient, std::optional<float> softcap,
                              float temperature, float scale, int num_threads) {
  LossRows rows;
  rows.dtype = DtypeOf(logits);
  if (logits.ndim() != 2 || (logits.flags() & py::array::c_style) == 0)
    throw py::value_error("logits must have two dimensions and be contiguous");
  rows.logits = logits.data();
  rows.num_rows = logits.shape(0);
  rows.num_columns = logits.shape(1);
  rows.gradient = nullptr;
  if (gradient.has_value()) {
    if (!gradient->dtype().is(logits.dtype()) || gradient->ndim() != 2 ||
        gradient->shape(0) != rows.num_rows || gradient->shape(1) != rows.num_columns ||
        (gradient->flags() & py::array::c_style) == 0)
      throw py::value_error("gradient must be an array like logits");
    rows.gradient = gradient->mutable_data();
  }
  if (keep.size() != rows.num_rows) throw py::value_error("keep must have one element a row");
  rows.offsets = Span(offsets);
  rows.token_ids = Span(token_ids);
  rows.weights = Span(weights);
  rows.keep = keep.data();
  // 0 means none to the core: a soft-cap that float32 rounds to it must not pass for that.
  if (softcap.has_value() && !(*softcap > 0 && std::isfinite(*softcap)))
    throw py::value_error("softcap must be above 0 and finite in float32, where it is " +
                          std::to_string(*softcap));
  rows.softcap = softcap.value_or(0);
  rows.temperature = temperature;
  rows.scale = scale;
  py::array_t<float> losses(rows.num_rows);
  float* const out = losses.mutable_data();
  WithoutGil([&] { return SparseLossRows(rows, num_threads, out); });
  return losses;
}

}  // namespace

void BindLoss(py::module_& module) {
  module.def("sparse_loss_rows", &LossOfRows, py::arg("logits").noconvert(),
             py::arg("offsets").noconvert(), py::arg("token_ids").noconvert(),
             py::arg("weights").noconvert(), py::arg("keep").noconvert(),
             py::arg("gradient").noconvert(), py::kw_only(), py::arg("softcap"),
             py::arg("temperature"), py::arg("scale"), py::arg("num_threads"));
  module.def(
      "advise_huge_pages",
      [](py::array& array) {
        AdviseHugePages(array.mutable_data(), static_cast<size_t>(array.nbytes()));
      },
      py::arg("array").noconvert());
}

}  // namespace sparselogits::python
