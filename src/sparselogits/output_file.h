// A file being written: exclusively created, locked, appended to, made durable, renamed. The one
// place where the writing side meets the operating system.
#pragma once

#include <memory>
#include <string>

#include "sparselogits/bytes.h"
#include "sparselogits/private_descriptor.h"
#include "sparselogits/status.h"

namespace sparselogits {

class OutputFile {
 public:
  // Fails where the file exists already, and leaves none where it fails later. Holds an exclusive
  // flock until it is closed, so that a writer at work can be told from one that died. The name,
  // not yet the content, survives a crash of the machine once this returns.
  static Status Create(const std::string& path, std::unique_ptr<OutputFile>* out);
  // Opens an existing file to append to it. Fails where another process holds the lock.
  static Status Reopen(const std::string& path, std::unique_ptr<OutputFile>* out);

  Status Append(ByteSpan bytes);
  Status Truncate(uint64_t length);
  // Everything appended so far survives a crash of the machine once this returns. After a failure
  // nothing is known of what was appended since the last one: the kernel drops it unwritten, goes
  // on showing it from memory, and reports the next attempt as a success.
  Status Sync();
  // Syncs, renames and makes the new name durable.
  Status RenameTo(const std::string& path);

  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }
  // Whether a parent process created it; then every write fails.
  bool is_inherited() const { return descriptor_.is_inherited(); }

 private:
  explicit OutputFile(std::string path) : path_(std::move(path)) {}
  Status Lock();

  std::string path_;
  PrivateDescriptor descriptor_;
  uint64_t size_ = 0;
};

// Removes a file and makes that durable.
Status RemoveFile(const std::string& path);

}  // namespace sparselogits
