// Files that cannot be mapped: copied where the file system is the reason, refused where a limit
// is.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>

#include "check.h"
#include "sparselogits/mapped_file.h"

using namespace sparselogits;

// The linker sends every mmap() of the core here (--wrap, CMakeLists.txt).
static int refusal = 0;
extern "C" void* __real_mmap(void*, size_t, int, int, int, off_t);
extern "C" void* __wrap_mmap(void* address, size_t length, int protection, int flags, int file,
                             off_t offset) {
  if (refusal == 0) return __real_mmap(address, length, protection, flags, file, offset);
  errno = refusal;
  return MAP_FAILED;
}

namespace {

class File {
 public:
  explicit File(const std::string& content) {
    const int descriptor = mkstemp(path_.data());
    CHECK(descriptor >= 0);
    CHECK_EQ(write(descriptor, content.data(), content.size()),
             static_cast<ssize_t>(content.size()));
    close(descriptor);
  }
  ~File() {
    refusal = 0;
    unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_ = (std::filesystem::temp_directory_path() / "sparselogits-XXXXXX").string();
};

Status Open(const std::string& path, std::string* content) {
  std::unique_ptr<MappedFile> file;
  SPARSELOGITS_RETURN_IF_ERROR(MappedFile::Open(path, &file));
  content->assign(file->bytes().begin(), file->bytes().end());
  return Status::Ok();
}

}  // namespace

TEST(a_file_is_read_where_its_file_system_cannot_map) {
  const File file("what it holds");
  for (const int error : {0, ENODEV, EACCES, EINVAL, EPERM, ENOSYS, EOPNOTSUPP}) {
    refusal = error;
    std::string content;
    CHECK_OK(Open(file.path(), &content));
    CHECK_EQ(content, "what it holds");
  }
}

TEST(an_empty_file_has_no_bytes) {
  const File file("");
  std::string content = "?";
  CHECK_OK(Open(file.path(), &content));
  CHECK_EQ(content, "");
}

TEST(a_limit_is_an_error_that_names_the_file_and_the_limit) {
  const File file("what it holds");
  refusal = ENOMEM;
  std::string content;
  const Status status = Open(file.path(), &content);
  CHECK(status.code() == StatusCode::kIo);
  CHECK_EQ(status.system_errno(), ENOMEM);
  CHECK_EQ(status.path(), file.path());
  CHECK(status.message().find("13 bytes") != std::string::npos);
  // This process has few maps, so that the other limit must be the one.
  CHECK(status.message().find("address space") != std::string::npos);
}

TEST(any_other_refusal_is_an_error) {
  const File file("what it holds");
  for (const int error : {EAGAIN, ENFILE, EBADF, EOVERFLOW}) {
    refusal = error;
    std::string content;
    const Status status = Open(file.path(), &content);
    CHECK(status.code() == StatusCode::kIo);
    CHECK_EQ(status.system_errno(), error);
  }
}

int main() { return sparselogits::testing::RunAll(); }
