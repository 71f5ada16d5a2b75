#include "errors.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace sparselogits::python {
namespace {

const char* ExceptionName(StatusCode code) {
  switch (code) {
    case StatusCode::kInvalidArgument: return "InvalidArgumentError";
    case StatusCode::kCorruption: return "CorruptionError";
    case StatusCode::kTruncated: return "TruncatedError";
    case StatusCode::kUnsupported: return "UnsupportedError";
    case StatusCode::kIo: return "CacheIOError";
    case StatusCode::kInternal:
    case StatusCode::kOk: break;
  }
  return "SparseLogitsError";
}

}  // namespace

py::object MakeException(const Status& status) {
  const py::object type =
      py::module_::import("sparselogits.errors").attr(ExceptionName(status.code()));
  switch (status.code()) {
    case StatusCode::kCorruption:
    case StatusCode::kTruncated:
    case StatusCode::kUnsupported: {
      const py::object none = py::none();
      return type(status.message(), status.path().empty() ? none : py::cast(status.path()),
                  status.offset() < 0 ? none : py::cast(status.offset()),
                  status.field().empty() ? none : py::cast(status.field()));
    }
    case StatusCode::kIo:
      return status.path().empty() ? type(status.system_errno(), status.message())
                                   : type(status.system_errno(), status.message(), status.path());
    default:
      return type(status.path().empty() ? status.message()
                                        : status.path() + ": " + status.message());
  }
}

void ThrowIfError(const Status& status) {
  if (status.ok()) return;
  const py::object exception = MakeException(status);
  PyErr_SetObject(py::type::handle_of(exception).ptr(), exception.ptr());
  throw py::error_already_set();
}

}  // namespace sparselogits::python
