// A read-only view of a whole file: memory-mapped, or in memory where the file system cannot map.
#pragma once

#include <memory>
#include <string>

#include "sparselogits/bytes.h"
#include "sparselogits/status.h"

namespace sparselogits {

class MappedFile {
 public:
  // The descriptor is closed again: the mapping outlives it, and forks inherit nothing open.
  // Where a limit on maps or on the address space is reached, the error says which.
  static Status Open(const std::string& path, std::unique_ptr<MappedFile>* out);
  // A file that is in memory already; `path` is for messages.
  static std::unique_ptr<MappedFile> FromMemory(std::string path, ByteSpan bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  ByteSpan bytes() const { return {data_, size_}; }

  // Until this is called again, the system reads no more from the disk than what is touched; else
  // it reads ahead, as its settings say: up to megabytes for each place that is looked at.
  void ReadAhead(bool wanted) const;
  // Has the system begin to read a part of the file that will be touched.
  void WillTouch(uint64_t offset, uint64_t length) const;
  const std::string& path() const { return path_; }

 private:
  explicit MappedFile(std::string path) : path_(std::move(path)) {}
  // REQUIRES: size_ is that of the file.
  Status MapOrCopy(int descriptor);

  std::string path_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
  Bytes copy_;  // where it is not mapped
};

}  // namespace sparselogits
