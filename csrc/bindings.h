// What module.cc calls; each function is defined in the bind_*.cc of its name.
#pragma once

#include <pybind11/pybind11.h>

namespace sparselogits::python {

void BindSampler(pybind11::module_& module);

}  // namespace sparselogits::python
