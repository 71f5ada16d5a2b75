// An open file that no forked child shares.
#pragma once

#include <sys/types.h>

namespace sparselogits {

// A fork copies descriptors, and an flock belongs to all copies of one: a child would keep the lock
// of a parent that is long dead, and write where its parent writes. The child's copy of a
// PrivateDescriptor is closed before the fork returns.
class PrivateDescriptor {
 public:
  PrivateDescriptor() = default;
  ~PrivateDescriptor() { Close(); }
  PrivateDescriptor(const PrivateDescriptor&) = delete;
  PrivateDescriptor& operator=(const PrivateDescriptor&) = delete;

  // open(2), with O_CLOEXEC. False where it fails; errno says why. REQUIRES: nothing is open.
  bool Open(const char* path, int flags, mode_t mode = 0);
  void Close();

  // -1 where nothing is open, as in the child.
  int get() const { return descriptor_; }
  // Whether this is the child's copy of what its parent had opened. Another thread of the parent
  // may have been at work on what contains it: nothing there is safe to use, nor even to destroy.
  bool is_inherited() const { return inherited_; }

 private:
  static void CloseInherited();
  static const int fork_handlers_;  // 0 once they are registered, else why they are not

  int descriptor_ = -1;
  bool inherited_ = false;
  // In the list of the open ones: the one after this, and what points to this.
  PrivateDescriptor* next_ = nullptr;
  PrivateDescriptor** link_ = nullptr;
};

}  // namespace sparselogits
