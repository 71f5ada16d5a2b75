#include "sparselogits/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

namespace sparselogits {

Status DirectoryLock::Acquire(const std::string& directory, std::unique_ptr<DirectoryLock>* out) {
  std::unique_ptr<DirectoryLock> lock(new DirectoryLock);
  if (!lock->descriptor_.Open(directory.c_str(), O_RDONLY | O_DIRECTORY))
    return Status::System("cannot open the cache directory", directory);
  if (flock(lock->descriptor_.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    return Status::Io(
               "another writer (or a recovery) is at work in this directory, in this or another "
               "process",
               EWOULDBLOCK)
        .In(directory);
  *out = std::move(lock);
  return Status::Ok();
}

}  // namespace sparselogits
