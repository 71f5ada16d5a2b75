// The extension module sparselogits._core: one bind_*.cc for each bound class or idea.
#include <pybind11/pybind11.h>

#include "bindings.h"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  module.doc() = "The C++ core of sparselogits. Private: use the sparselogits package.";
  sparselogits::python::BindConfig(module);
  sparselogits::python::BindModel(module);
  sparselogits::python::BindLock(module);
  sparselogits::python::BindWriter(module);
  sparselogits::python::BindReader(module);
  sparselogits::python::BindLoader(module);
  sparselogits::python::BindHashes(module);
  sparselogits::python::BindLoss(module);
  sparselogits::python::BindLz4(module);
  sparselogits::python::BindSampler(module);
}
