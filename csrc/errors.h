// Turns a core Status into the Python exception of sparselogits.errors.
#pragma once

#include <pybind11/pybind11.h>

#include "sparselogits/status.h"

namespace sparselogits::python {

// REQUIRES: the GIL is held, and status is not ok.
pybind11::object MakeException(const Status& status);

// REQUIRES: the GIL is held. Throws pybind11::error_already_set when status is not ok.
void ThrowIfError(const Status& status);

// Runs work() -> Status with the GIL released, and throws what it reports.
// REQUIRES: the GIL is held.
template <typename Work>
void WithoutGil(Work work) {
  Status status;
  {
    const pybind11::gil_scoped_release release;
    status = work();
  }
  ThrowIfError(status);
}

}  // namespace sparselogits::python
