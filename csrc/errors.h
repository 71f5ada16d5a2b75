// Turns a core Status into the Python exception of sparselogits.errors.
#pragma once

#include "sparselogits/status.h"

namespace sparselogits::python {

// REQUIRES: the GIL is held. Throws pybind11::error_already_set when status is not ok.
void ThrowIfError(const Status& status);

}  // namespace sparselogits::python
