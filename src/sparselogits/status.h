// How the core reports failure: a value, never an exception. Only csrc/ raises.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

namespace sparselogits {

enum class StatusCode {
  kOk,
  kInvalidArgument,  // the caller's input
  kCorruption,       // bytes that contradict themselves, a checksum or a limit
  kTruncated,        // bytes that end too early
  kUnsupported,      // a version, feature or codec that this build does not know
  kIo,               // the operating system
  kInternal,         // a promise between parts of this library
};

// One pointer, null when all is well: returning it costs nothing on the hot path.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(const Status& other) : error_(other.ok() ? nullptr : new Error(*other.error_)) {}
  Status(Status&&) noexcept = default;
  Status& operator=(Status other) noexcept {
    error_.swap(other.error_);
    return *this;
  }

  static Status Ok() { return {}; }
  static Status InvalidArgument(std::string message) {
    return {StatusCode::kInvalidArgument, std::move(message)};
  }
  static Status Corruption(std::string message) {
    return {StatusCode::kCorruption, std::move(message)};
  }
  static Status Truncated(std::string message) {
    return {StatusCode::kTruncated, std::move(message)};
  }
  static Status Unsupported(std::string message) {
    return {StatusCode::kUnsupported, std::move(message)};
  }
  static Status Internal(std::string message) {
    return {StatusCode::kInternal, std::move(message)};
  }
  static Status Io(std::string message, int system_errno) {
    Status status(StatusCode::kIo, std::move(message));
    status.error_->system_errno = system_errno;
    return status;
  }

  // The system call that just failed: `what` could not be done to `path`.
  static Status System(const std::string& what, const std::string& path) {
    const int error = errno;
    return Io(what + ": " + std::strerror(error), error).In(path);
  }

  bool ok() const { return error_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::kOk : error_->code; }
  const std::string& message() const { return Get().message; }
  const std::string& path() const { return Get().path; }
  const std::string& field() const { return Get().field; }
  int64_t offset() const { return Get().offset; }  // byte in the file; -1 where it has no meaning
  int system_errno() const { return Get().system_errno; }

  // Say where it happened; the innermost caller, who knows the field best, comes first and wins.
  Status&& In(const std::string& path) && {
    if (!ok() && error_->path.empty()) error_->path = path;
    return std::move(*this);
  }
  Status&& At(int64_t offset) && {
    if (!ok() && error_->offset < 0) error_->offset = offset;
    return std::move(*this);
  }
  Status&& Field(const char* field) && {
    if (!ok() && error_->field.empty()) error_->field = field;
    return std::move(*this);
  }
  // Turns an offset within a part into one within what contains the part.
  Status&& Shift(int64_t base) && {
    if (!ok() && error_->offset >= 0) error_->offset += base;
    return std::move(*this);
  }

 private:
  struct Error {
    StatusCode code = StatusCode::kOk;
    int system_errno = 0;
    int64_t offset = -1;
    std::string message, path, field;
  };

  Status(StatusCode code, std::string message) : error_(new Error) {
    error_->code = code;
    error_->message = std::move(message);
  }
  const Error& Get() const {
    static const Error kNone;
    return ok() ? kNone : *error_;
  }

  std::unique_ptr<Error> error_;
};

}  // namespace sparselogits

#define SPARSELOGITS_RETURN_IF_ERROR(expression)        \
  do {                                                  \
    ::sparselogits::Status status_or_ok = (expression); \
    if (!status_or_ok.ok()) return status_or_ok;        \
  } while (false)
