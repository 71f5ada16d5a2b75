#include "sparselogits/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "sparselogits/uninterrupted.h"

namespace sparselogits {
namespace {

Status ReadAll(int descriptor, uint8_t* out, size_t size, const std::string& path) {
  for (size_t done = 0; done < size;) {
    const ssize_t got = Uninterrupted(
        [&] { return pread(descriptor, out + done, size - done, static_cast<off_t>(done)); });
    if (got < 0) return Status::System("cannot read", path);
    if (got == 0) return Status::Truncated("the file shrank while it was read").In(path);
    done += static_cast<size_t>(got);
  }
  return Status::Ok();
}

}  // namespace

Status MappedFile::Open(const std::string& path, std::unique_ptr<MappedFile>* out) {
  const int descriptor = Uninterrupted([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); });
  if (descriptor < 0) return Status::System("cannot open", path);
  std::unique_ptr<MappedFile> file(new MappedFile(path));
  Status status;
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    status = Status::System("cannot stat", path);
  } else if (!S_ISREG(info.st_mode)) {
    status = Status::Io("not a regular file", EINVAL).In(path);
  } else {
    file->size_ = static_cast<size_t>(info.st_size);
    void* const at = file->size_ == 0
                         ? MAP_FAILED
                         : mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (at != MAP_FAILED) {
      file->mapped_ = true;
      file->data_ = static_cast<const uint8_t*>(at);
    } else {
      file->copy_.resize(file->size_ + kReadPadding);
      file->data_ = file->copy_.data();
      status = ReadAll(descriptor, file->copy_.data(), file->size_, path);
    }
  }
  close(descriptor);
  if (status.ok()) *out = std::move(file);
  return status;
}

std::unique_ptr<MappedFile> MappedFile::FromMemory(std::string path, ByteSpan bytes) {
  std::unique_ptr<MappedFile> file(new MappedFile(std::move(path)));
  file->size_ = bytes.size();
  file->copy_.reserve(bytes.size() + kReadPadding);
  file->copy_.assign(bytes.begin(), bytes.end());
  file->copy_.resize(bytes.size() + kReadPadding);
  file->data_ = file->copy_.data();
  return file;
}

MappedFile::~MappedFile() {
  if (mapped_) munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace sparselogits
