// How the core reports failure: a value, never an exception. Only csrc/ raises.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace sparselogits {

enum class StatusCode {
  kOk,
  kInvalidArgument,     // the caller's input
  kCorruption,          // bytes that contradict themselves, a checksum or a limit
  kTruncated,           // bytes that end too early
  kUnsupported,         // a version, feature or codec that this build does not know
  kMismatch,            // two valid things that do not belong together
  kVocabularyMismatch,  // the same, about the number of tokens
  kIo,                  // the operating system
};

class [[nodiscard]] Status {
 public:
  Status() = default;
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
  static Status Mismatch(std::string message) {
    return {StatusCode::kMismatch, std::move(message)};
  }
  static Status VocabularyMismatch(std::string message) {
    return {StatusCode::kVocabularyMismatch, std::move(message)};
  }
  static Status Io(std::string message, int system_errno) {
    Status status(StatusCode::kIo, std::move(message));
    status.system_errno_ = system_errno;
    return status;
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& path() const { return path_; }
  const std::string& field() const { return field_; }
  int64_t offset() const { return offset_; }  // byte in the file; -1 where it has no meaning
  int system_errno() const { return system_errno_; }

  // Say where it happened; the innermost caller, who knows the field best, comes first and wins.
  Status&& In(const std::string& path) && {
    if (path_.empty()) path_ = path;
    return std::move(*this);
  }
  Status&& At(int64_t offset) && {
    if (offset_ < 0) offset_ = offset;
    return std::move(*this);
  }
  Status&& Field(const char* field) && {
    if (field_.empty()) field_ = field;
    return std::move(*this);
  }

  // Turns an offset within a part into one within what contains the part.
  Status&& Shift(int64_t base) && {
    if (offset_ >= 0) offset_ += base;
    return std::move(*this);
  }

 private:
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  StatusCode code_ = StatusCode::kOk;
  int system_errno_ = 0;
  int64_t offset_ = -1;
  std::string message_;
  std::string path_;
  std::string field_;
};

}  // namespace sparselogits

#define SPARSELOGITS_RETURN_IF_ERROR(expression)        \
  do {                                                  \
    ::sparselogits::Status status_or_ok = (expression); \
    if (!status_or_ok.ok()) return status_or_ok;        \
  } while (false)
