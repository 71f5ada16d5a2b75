#include "sparselogits/private_descriptor.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "sparselogits/uninterrupted.h"

namespace sparselogits {
namespace {

// Held over open(2) and close(2), so that a fork finds every open descriptor listed, and no other.
std::mutex mutex;

// The open ones, linked through themselves: the child of a fork should not even free memory.
PrivateDescriptor* first = nullptr;

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
  descriptor_ = Uninterrupted([&] { return open(path, flags | O_CLOEXEC, mode); });
  if (descriptor_ < 0) return false;
  next_ = first;
  link_ = &first;
  if (next_ != nullptr) next_->link_ = &next_;
  first = this;
  return true;
}

void PrivateDescriptor::Close() {
  if (descriptor_ < 0) return;
  const std::lock_guard lock(mutex);
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  flock(descriptor_, LOCK_UN);  // at once, even if a child has just been forked and not yet run
  close(descriptor_);
  descriptor_ = -1;
}

// In the child, whose only thread this is.
void PrivateDescriptor::CloseInherited() {
  for (; first != nullptr; first = first->next_) {
    close(first->descriptor_);
    first->descriptor_ = -1;
    first->inherited_ = true;
  }
}

}  // namespace sparselogits
