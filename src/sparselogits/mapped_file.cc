#include "sparselogits/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>

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

// What file systems that map no files answer. Anything else would hide a fault, or a limit behind
// which a copy in memory only makes things worse.
bool FileSystemCannotMap(int error) {
  return error == ENODEV || error == EACCES || error == EINVAL || error == EPERM ||
         error == ENOSYS || error == EOPNOTSUPP;
}

// mmap() says ENOMEM for two limits; the number of maps tells which.
Status OutOfMaps(const std::string& path, size_t size) {
  const std::string what = "cannot map the file's " + std::to_string(size) + " bytes: ";
  std::ifstream maps("/proc/self/maps");
  const auto used = std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  std::ptrdiff_t most = 0;
  if (std::ifstream("/proc/sys/vm/max_map_count") >> most && used >= most)
    return Status::Io(what + "the process has " + std::to_string(used) +
                          " memory maps; vm.max_map_count is " + std::to_string(most),
                      ENOMEM)
        .In(path);
  rlimit space;
  const bool limited = getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY;
  return Status::Io(what + "the address space is used up" +
                        (limited ? "; its limit (ulimit -v, RLIMIT_AS) is " +
                                       std::to_string(space.rlim_cur) + " bytes"
                                 : ""),
                    ENOMEM)
      .In(path);
}

}  // namespace

Status MappedFile::Open(const std::string& path, std::unique_ptr<MappedFile>* out) {
  struct Closer {
    ~Closer() {
      if (descriptor >= 0) close(descriptor);
    }
    const int descriptor;
  } file{Uninterrupted([&] {
    // Opening a pipe must not wait for who writes to it.
    return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  })};
  if (file.descriptor < 0) return Status::System("cannot open", path);
  struct stat info;
  if (fstat(file.descriptor, &info) != 0) return Status::System("cannot stat", path);
  if (!S_ISREG(info.st_mode)) return Status::Io("not a regular file", EINVAL).In(path);
  std::unique_ptr<MappedFile> mapped(new MappedFile(path));
  mapped->size_ = static_cast<size_t>(info.st_size);
  SPARSELOGITS_RETURN_IF_ERROR(mapped->MapOrCopy(file.descriptor));
  *out = std::move(mapped);
  return Status::Ok();
}

Status MappedFile::MapOrCopy(int descriptor) {
  if (size_ != 0) {
    void* const at = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (at != MAP_FAILED) {
      mapped_ = true;
      data_ = static_cast<const uint8_t*>(at);
      return Status::Ok();
    }
    if (errno == ENOMEM) return OutOfMaps(path_, size_);
    if (!FileSystemCannotMap(errno)) return Status::System("cannot map", path_);
  }
  copy_.resize(size_ + kReadPadding);
  data_ = copy_.data();
  return ReadAll(descriptor, copy_.data(), size_, path_);
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

void MappedFile::ReadAhead(bool wanted) const {
  if (mapped_) madvise(const_cast<uint8_t*>(data_), size_, wanted ? MADV_NORMAL : MADV_RANDOM);
}

void MappedFile::WillTouch(uint64_t offset, uint64_t length) const {
  if (!mapped_ || offset >= size_) return;
  const uint64_t start = offset - offset % static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  madvise(const_cast<uint8_t*>(data_) + start, std::min(offset + length, uint64_t{size_}) - start,
          MADV_WILLNEED);
}

MappedFile::~MappedFile() {
  if (mapped_) munmap(const_cast<uint8_t*>(data_), size_);
}

}  // namespace sparselogits
