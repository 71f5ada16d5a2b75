// What module.cc calls; each function is defined in the bind_*.cc of its name.
#pragma once

#include <pybind11/pybind11.h>

namespace sparselogits::python {

void BindConfig(pybind11::module_& module);
void BindModel(pybind11::module_& module);
void BindLock(pybind11::module_& module);
void BindWriter(pybind11::module_& module);
void BindReader(pybind11::module_& module);
void BindLoader(pybind11::module_& module);
void BindHashes(pybind11::module_& module);
void BindLoss(pybind11::module_& module);
void BindLz4(pybind11::module_& module);
void BindSampler(pybind11::module_& module);

}  // namespace sparselogits::python
