// sparselogits._core.DirectoryLock.
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bindings.h"
#include "errors.h"
#include "sparselogits/directory_lock.h"

namespace py = pybind11;

namespace sparselogits::python {

void BindLock(py::module_& module) {
  py::class_<DirectoryLock>(module, "DirectoryLock")
      .def(py::init([](const std::string& directory) {
             std::unique_ptr<DirectoryLock> lock;
             WithoutGil([&] { return DirectoryLock::Acquire(directory, &lock); });
             return lock;
           }),
           py::arg("directory"))
      .def("release", &DirectoryLock::Release);
}

}  // namespace sparselogits::python
