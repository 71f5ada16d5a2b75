#include "sparselogits/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "sparselogits/uninterrupted.h"

namespace sparselogits {
namespace {

Status SyncDirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash);
  const int descriptor =
      Uninterrupted([&] { return open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  if (descriptor < 0) return Status::System("cannot open the directory", directory);
  const int result = Uninterrupted([&] { return fsync(descriptor); });
  const Status status = result == 0 ? Status::Ok() : Status::System("cannot sync", directory);
  close(descriptor);
  return status;
}

}  // namespace

Status OutputFile::Create(const std::string& path, std::unique_ptr<OutputFile>* out) {
  std::unique_ptr<OutputFile> file(new OutputFile(path));
  if (!file->descriptor_.Open(path.c_str(), O_RDWR | O_CREAT | O_EXCL, 0666))
    return Status::System("cannot create", path);
  Status status = file->Lock();
  if (status.ok()) status = SyncDirectoryOf(path);
  if (status.ok())
    *out = std::move(file);
  else
    static_cast<void>(RemoveFile(path));
  return status;
}

Status OutputFile::Reopen(const std::string& path, std::unique_ptr<OutputFile>* out) {
  std::unique_ptr<OutputFile> file(new OutputFile(path));
  if (!file->descriptor_.Open(path.c_str(), O_RDWR)) return Status::System("cannot open", path);
  SPARSELOGITS_RETURN_IF_ERROR(file->Lock());
  const off_t end = lseek(file->descriptor_.get(), 0, SEEK_END);
  if (end < 0) return Status::System("cannot seek", path);
  file->size_ = static_cast<uint64_t>(end);
  *out = std::move(file);
  return Status::Ok();
}

Status OutputFile::Lock() {
  if (flock(descriptor_.get(), LOCK_EX | LOCK_NB) == 0) return Status::Ok();
  if (errno == EWOULDBLOCK)
    return Status::Io("another writer is at work on this shard and holds its lock", EWOULDBLOCK)
        .In(path_);
  return Status::System("cannot lock", path_);
}

Status OutputFile::Append(ByteSpan bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = Uninterrupted([&] {
      return pwrite(descriptor_.get(), bytes.data() + done, bytes.size() - done,
                    static_cast<off_t>(size_ + done));
    });
    if (written < 0) return Status::System("cannot write", path_);
    if (written == 0) return Status::Io("cannot write: not one byte was taken", EIO).In(path_);
    done += static_cast<size_t>(written);
  }
  size_ += bytes.size();
  return Status::Ok();
}

Status OutputFile::Truncate(uint64_t length) {
  if (Uninterrupted([&] { return ftruncate(descriptor_.get(), static_cast<off_t>(length)); }) != 0)
    return Status::System("cannot truncate", path_);
  size_ = length;
  return Status::Ok();
}

Status OutputFile::Sync() {
  if (Uninterrupted([&] { return fdatasync(descriptor_.get()); }) == 0) return Status::Ok();
  Status failed = Status::System("cannot sync", path_);
  // What is shown from memory alone must not be taken for what is there.
  posix_fadvise(descriptor_.get(), 0, 0, POSIX_FADV_DONTNEED);
  return failed;
}

Status OutputFile::RenameTo(const std::string& path) {
  SPARSELOGITS_RETURN_IF_ERROR(Sync());
  if (std::rename(path_.c_str(), path.c_str()) != 0) return Status::System("cannot rename", path_);
  path_ = path;
  return SyncDirectoryOf(path);
}

Status RemoveFile(const std::string& path) {
  if (unlink(path.c_str()) != 0) return Status::System("cannot remove", path);
  return SyncDirectoryOf(path);
}

}  // namespace sparselogits
