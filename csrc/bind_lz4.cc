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

// Imports the package now: the child of a fork would wait for ever for the lock of an import that
// another thread of its parent had begun. Without the package nothing is compressed, and compressed
// frames are refused when they are read.
void UsePackage() {
  try {
    py::module_::import("lz4.block");
  } catch (py::error_already_set&) {
  }
  SetLz4(&kPackage);
}

}  // namespace

void BindLz4(py::module_& module) {
  if (LinkedLz4() == nullptr) UsePackage();
  // For tests: "liblz4" or "package"; returns whether it is there.
  module.def(
      "use_lz4",
      [](const std::string& which) {
        if (which == "package")
          UsePackage();
        else if (LinkedLz4() != nullptr)
          SetLz4(LinkedLz4());
        else
          return false;
        return true;
      },
      py::arg("which"));
}

}  // namespace sparselogits::python
