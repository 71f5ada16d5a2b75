// Exclusive use of a cache's directory by one writer, recovery or merge.
#pragma once

#include <memory>
#include <string>

#include "sparselogits/private_descriptor.h"
#include "sparselogits/status.h"

namespace sparselogits {

// An flock on the directory itself, which the system drops when the process ends, however it ends.
// File systems that cannot lock a directory go without: there the lock on the unfinished shard is
// what keeps a second writer out.
class DirectoryLock {
 public:
  static Status Acquire(const std::string& directory, std::unique_ptr<DirectoryLock>* out);
  void Release() { descriptor_.Close(); }

 private:
  DirectoryLock() = default;

  PrivateDescriptor descriptor_;
};

}  // namespace sparselogits
