// LZ4 for builds without liblz4: the lz4 package of Python, called frame by frame.
#include <pybind11/pybind11.h>

#include <cstring>
#include <string>
#include <string_view>

#include "arrays.h"
#include "bindings.h"
#include "sparselogits/lz4_block.h"

namespace py = pybind11;

namespace sparselogits::python {
namespace {

bool Compress(ByteSpan in, Bytes* out) {
  const py::gil_scoped_acquire acquire;
  try {
    const py::object block = py::module_::import("lz4.block");
    const py::bytes packed = block.attr("compress")(ToPython(in), py::arg("store_size") = false);
    const std::string_view view = packed;
    out->assign(view.begin(), view.end());
    return true;
  } catch (py::error_already_set&) {
    return false;
  }
}

bool Decompress(ByteSpan in, uint8_t* out, size_t size) {
  const py::gil_scoped_acquire acquire;
  try {
    const py::object block = py::module_::import("lz4.block");
    const py::bytes content =
        block.attr("decompress")(ToPython(in), py::arg("uncompressed_size") = size);
    const std::string_view view = content;
    if (view.size() != size) return false;
    std::memcpy(out, view.data(), size);
    return true;
  } catch (py::error_already_set&) {
    return false;
  }
}

constexpr Lz4Functions kPackage = {Compress, Decompress};

}  // namespace

void BindLz4(py::module_& module) {
  if (LinkedLz4() == nullptr) SetLz4(&kPackage);
  // For tests: "liblz4" or "package"; returns whether it is there.
  module.def(
      "use_lz4",
      [](const std::string& which) {
        const Lz4Functions* const functions = which == "package" ? &kPackage : LinkedLz4();
        if (functions == nullptr) return false;
        SetLz4(functions);
        return true;
      },
      py::arg("which"));
}

}  // namespace sparselogits::python
