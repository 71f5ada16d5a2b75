// Preloaded into an interpreter (LD_PRELOAD): watches the system calls on files below one
// directory, logs them in order, and makes one of them fail. Only Linux, where off_t has 64 bits.
//
// The real calls go through syscall(), so that nothing has to be looked up first. Not thread-safe:
// the processes under test have one thread.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// faulty_calls.py repeats these two lists.
enum kind {
  OPEN,
  WRITE,
  SYNC,
  DATASYNC,
  TRUNCATE,
  RENAME,
  UNLINK,
  MKDIR,
  CLOSE,
  MMAP,
  ADVISE,
  MARK
};
enum action {
  PASS,         // nothing fails
  FAIL,         // the call is not made and returns an error
  FAIL_AFTER,   // the call is made and returns an error
  SHORT,        // a write takes half of its bytes
  KILL_BEFORE,  // SIGKILL
  KILL_HALF,    // a write takes half of its bytes, then SIGKILL
  KILL_AFTER,
};

// One call in the log, followed by its path, second path and data.
struct record {
  uint32_t kind, flags;
  int32_t file;   // a number of its own for each open
  int32_t error;  // errno of a call that failed, by itself or by plan; else 0
  uint32_t path_length, second_length, data_length;
  int64_t offset, length;
};

enum { MAX_DESCRIPTORS = 4096 };

static char directory[PATH_MAX];
static int log_descriptor = -1;
static int files[MAX_DESCRIPTORS];  // 0: not watched
static int last_file;

static long calls;  // watched ones so far
static long faulty_call = -1;
static enum action faulty_action;
static int faulty_errno;
static int faulty_stays;  // all later calls of the kind fail too
static enum kind faulty_kind;

void faulty_calls_watch(const char* path, int descriptor) {
  strncpy(directory, path, sizeof(directory) - 1);
  log_descriptor = descriptor;
  calls = 0;
}

void faulty_calls_arm(long call, int action, int error, int stays) {
  calls = 0;
  faulty_call = call;
  faulty_action = (enum action)action;
  faulty_errno = error;
  faulty_stays = stays;
}

static int is_below(const char* path) {
  const size_t length = strlen(directory);
  return length > 0 && strncmp(path, directory, length) == 0 &&
         (path[length] == '/' || path[length] == '\0');
}

static int file_of(int descriptor) {
  return descriptor >= 0 && descriptor < MAX_DESCRIPTORS ? files[descriptor] : 0;
}

static void put(const void* bytes, size_t length) {
  for (size_t done = 0; done < length;) {
    const long written =
        syscall(SYS_write, log_descriptor, (const char*)bytes + done, length - done);
    if (written <= 0) _exit(99);
    done += (size_t)written;
  }
}

static void log_call(struct record record, const char* path, const char* second, const void* data) {
  if (log_descriptor < 0) return;
  record.path_length = path == NULL ? 0 : (uint32_t)strlen(path);
  record.second_length = second == NULL ? 0 : (uint32_t)strlen(second);
  put(&record, sizeof(record));
  put(path, record.path_length);
  put(second, record.second_length);
  put(data, record.data_length);
}

void faulty_calls_mark(long value) {
  log_call((struct record){.kind = MARK, .length = value}, NULL, NULL, NULL);
}

static enum action next_action(enum kind kind) {
  const long call = calls++;
  if (call == faulty_call) {
    faulty_kind = kind;
    return faulty_action;
  }
  const int again = faulty_stays && faulty_call >= 0 && call > faulty_call && kind == faulty_kind;
  return again ? faulty_action : PASS;
}

static void die(void) {
  syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
  for (;;) pause();
}

// Makes a watched call, expression `made`, or does to it what is planned, and logs it.
// `halved` is the call with half of its bytes, where it has any.
#define CALL(watched, kind_, made, halved, record_, path_, second_, data_)                      \
  do {                                                                                          \
    if (!(watched)) return made;                                                                \
    const enum action action = next_action(kind_);                                              \
    struct record record = record_;                                                             \
    record.kind = kind_;                                                                        \
    if (action == KILL_BEFORE) die();                                                           \
    const int half = action == SHORT || action == KILL_HALF;                                    \
    const long result = action == FAIL ? -1 : half ? halved : made;                             \
    const int error = action == FAIL || action == FAIL_AFTER ? faulty_errno : errno;            \
    if (result >= 0) {                                                                          \
      if (kind_ == WRITE) record.data_length = (uint32_t)result;                                \
      if (kind_ == OPEN && result < MAX_DESCRIPTORS) record.file = files[result] = ++last_file; \
    } else {                                                                                    \
      record.error = error;                                                                     \
    }                                                                                           \
    log_call(record, path_, second_, data_);                                                    \
    if (action == KILL_HALF || action == KILL_AFTER) die();                                     \
    errno = error;                                                                              \
    return action == FAIL_AFTER ? -1 : result;                                                  \
  } while (0)

#define RECORD(...) ((struct record){__VA_ARGS__})

static int open_any(const char* path, int flags, mode_t mode) {
  CALL(is_below(path), OPEN, (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode),
       (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), RECORD(.flags = (uint32_t)flags),
       path, NULL, NULL);
}

static mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_any(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_any(path, flags, mode);
}

ssize_t pwrite(int descriptor, const void* data, size_t length, off_t offset) {
  const int file = file_of(descriptor);
  CALL(file, WRITE, syscall(SYS_pwrite64, descriptor, data, length, offset),
       syscall(SYS_pwrite64, descriptor, data, length / 2, offset),
       RECORD(.file = file, .offset = offset), NULL, NULL, data);
}

ssize_t pwrite64(int descriptor, const void* data, size_t length, off_t offset) {
  return pwrite(descriptor, data, length, offset);
}

ssize_t write(int descriptor, const void* data, size_t length) {
  const int file = file_of(descriptor);
  const off_t offset = file ? (off_t)syscall(SYS_lseek, descriptor, 0, SEEK_CUR) : 0;
  CALL(file, WRITE, syscall(SYS_write, descriptor, data, length),
       syscall(SYS_write, descriptor, data, length / 2), RECORD(.file = file, .offset = offset),
       NULL, NULL, data);
}

int fsync(int descriptor) {
  const int file = file_of(descriptor);
  CALL(file, SYNC, (int)syscall(SYS_fsync, descriptor), (int)syscall(SYS_fsync, descriptor),
       RECORD(.file = file), NULL, NULL, NULL);
}

int fdatasync(int descriptor) {
  const int file = file_of(descriptor);
  CALL(file, DATASYNC, (int)syscall(SYS_fdatasync, descriptor),
       (int)syscall(SYS_fdatasync, descriptor), RECORD(.file = file), NULL, NULL, NULL);
}

int ftruncate(int descriptor, off_t length) {
  const int file = file_of(descriptor);
  CALL(file, TRUNCATE, (int)syscall(SYS_ftruncate, descriptor, length),
       (int)syscall(SYS_ftruncate, descriptor, length), RECORD(.file = file, .length = length),
       NULL, NULL, NULL);
}

int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

int rename(const char* from, const char* to) {
  CALL(is_below(to), RENAME, (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0),
       (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), RECORD(0), from, to, NULL);
}

int unlink(const char* path) {
  CALL(is_below(path), UNLINK, (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0),
       (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), RECORD(0), path, NULL, NULL);
}

int mkdir(const char* path, mode_t mode) {
  CALL(is_below(path), MKDIR, (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode),
       (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), RECORD(0), path, NULL, NULL);
}

int posix_fadvise(int descriptor, off_t offset, off_t length, int advice) {
  const int file = file_of(descriptor);
  CALL(file, ADVISE, (int)syscall(SYS_fadvise64, descriptor, offset, length, advice),
       (int)syscall(SYS_fadvise64, descriptor, offset, length, advice),
       RECORD(.file = file, .offset = offset, .length = length, .flags = (uint32_t)advice), NULL,
       NULL, NULL);
}

int posix_fadvise64(int descriptor, off_t offset, off_t length, int advice) {
  return posix_fadvise(descriptor, offset, length, advice);
}

int close(int descriptor) {
  const int file = file_of(descriptor);
  if (file) files[descriptor] = 0;  // Linux closes it whatever the call returns
  CALL(file, CLOSE, (int)syscall(SYS_close, descriptor), (int)syscall(SYS_close, descriptor),
       RECORD(.file = file), NULL, NULL, NULL);
}

void* mmap(void* at, size_t length, int protection, int flags, int descriptor, off_t offset) {
  if ((flags & MAP_ANONYMOUS) == 0 && file_of(descriptor)) {
    const enum action action = next_action(MMAP);
    if (action == KILL_BEFORE || action == KILL_AFTER) die();
    const int error = action == FAIL ? faulty_errno : 0;
    log_call(RECORD(.kind = MMAP, .file = file_of(descriptor), .error = error), NULL, NULL, NULL);
    if (error) {
      errno = error;
      return MAP_FAILED;
    }
  }
  return (void*)syscall(SYS_mmap, at, length, protection, flags, descriptor, offset);
}

void* mmap64(void* at, size_t length, int protection, int flags, int descriptor, off_t offset) {
  return mmap(at, length, protection, flags, descriptor, offset);
}
