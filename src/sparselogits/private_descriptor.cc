#include "sparselogits/private_descriptor.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <unordered_set>

#include "sparselogits/uninterrupted.h"

namespace sparselogits {
namespace {

// Held over open(2) and close(2), so that a fork finds every open descriptor listed, and no other.
std::mutex mutex;

// Never destroyed: a program may exit with descriptors open.
std::unordered_set<PrivateDescriptor*>& OpenOnes() {
  static auto* const open = new std::unordered_set<PrivateDescriptor*>;
  return *open;
}

}  // namespace

const int PrivateDescriptor::fork_handlers_ =
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); },
                   [] {
                     CloseInherited();
                     mutex.unlock();
                   });

bool PrivateDescriptor::Open(const char* path, int flags, mode_t mode) {
  if (fork_handlers_ != 0) {
    errno = fork_handlers_;
    return false;
  }
  const std::lock_guard lock(mutex);
  OpenOnes().insert(this);
  descriptor_ = Uninterrupted([&] { return open(path, flags | O_CLOEXEC, mode); });
  if (descriptor_ < 0) OpenOnes().erase(this);
  return descriptor_ >= 0;
}

void PrivateDescriptor::Close() {
  if (descriptor_ < 0) return;
  const std::lock_guard lock(mutex);
  OpenOnes().erase(this);
  flock(descriptor_, LOCK_UN);  // at once, even if a child has just been forked and not yet run
  close(descriptor_);
  descriptor_ = -1;
}

// In the child, whose only thread this is.
void PrivateDescriptor::CloseInherited() {
  for (PrivateDescriptor* const file : OpenOnes()) {
    close(file->descriptor_);
    file->descriptor_ = -1;
    file->inherited_ = true;
  }
  OpenOnes().clear();
}

}  // namespace sparselogits
