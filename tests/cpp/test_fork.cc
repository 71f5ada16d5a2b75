// What the child of a fork may do: read on, whatever other threads were doing, and never write.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <fstream>

#include "check.h"
#include "known_cache.h"
#include "sparselogits/directory_lock.h"
#include "sparselogits/recover.h"
#include "threads.h"

using namespace sparselogits;
using namespace sparselogits::testing;

namespace {

// The allocators of AddressSanitizer and ThreadSanitizer (GCC 12) hang in a child that was forked
// while another thread allocated: there the parent has one thread.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kReadingThreads = 0;
#else
constexpr int kReadingThreads = 2;
#endif

// Forks; the child does its work and ends. One that hangs is ended by SIGALRM.
template <typename Work>
pid_t Fork(Work work) {
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child != 0) return child;
  alarm(30);
  try {
    work();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "in the child: %s\n", error.what());
    _exit(1);
  }
  _exit(0);
}

void CheckEndsWell(pid_t child) {
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 0);
}

// A child that lives until this goes out of scope.
class LivingChild {
 public:
  LivingChild() {
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    child_ = Fork([&] {
      close(ends[1]);
      char byte;
      CHECK_EQ(read(ends[0], &byte, 1), ssize_t{0});  // the parent has closed its end
    });
    close(ends[0]);
    end_ = ends[1];
  }
  ~LivingChild() {
    close(end_);
    waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_;
  int end_;
};

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Whether a descriptor is of a file whose path begins like this. Allocates nothing.
bool IsOpenIn(const std::string& prefix, int descriptor) {
  std::array<char, 32> link;
  std::array<char, 4096> target;
  std::snprintf(link.data(), link.size(), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link.data(), target.data(), target.size());
  return length >= static_cast<ssize_t>(prefix.size()) &&
         std::equal(prefix.begin(), prefix.end(), target.begin());
}

}  // namespace

TEST(a_child_reads_on_whatever_other_threads_were_doing) {
  for (const int64_t repeats : {1, 200}) {  // LZ4-wrapped, if this build can write that
    const KnownCache cache(3, 20, repeats);
    for (const size_t max_open : {3, 2, 1}) {
      const std::unique_ptr<CacheReader> reader = cache.Open(max_open);
      std::atomic<bool> done = false;
      RunThreads(1 + kReadingThreads, [&](int i) {
        if (i == 0) {
          const AtTheEnd at_the_end{done};
          for (int child = 0; child < 40; ++child)
            CheckEndsWell(Fork([&] { CheckAll(cache.content, *reader, 60); }));
        }
        // The shortest of reads: a good part of their time goes by under a mutex, if there is one.
        while (!done) CheckPositions(cache.content, *reader, std::array{int64_t{5}});
      });
    }
  }
}

TEST(a_child_writes_nothing_with_its_parents_writer) {
  const TemporaryDirectory directory;
  const std::string partial = directory / "s.partial", path = directory / "s";
  const std::unique_ptr<ShardWriter> writer = CreateShard(partial, 0, 1);
  CHECK_OK(writer->Append(KnownSequences(0, 40, 1).view()));
  const std::string before = Content(partial);
  CHECK(!writer->is_inherited());
  CheckEndsWell(Fork([&] {
    CHECK(writer->is_inherited());
    CHECK(writer->Commit().code() == StatusCode::kIo);
    CHECK(writer->Finish(path).code() == StatusCode::kIo);
  }));
  CHECK(Content(partial) == before);
  CHECK_OK(writer->Append(KnownSequences(40, 1, 1).view()));
  const ShardRow row = FinishShard(writer.get(), path);
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open({row}, KnownHeader(1).config, {}, CheckPayload::kYes, &reader));
  CheckAll(KnownSequences(0, 41, 1), *reader, 41);
}

TEST(a_child_that_closes_its_copy_of_a_writer_changes_nothing) {
  const TemporaryDirectory directory;
  std::unique_ptr<ShardWriter> writer = CreateShard(directory / "s.partial", 0, 1);
  CHECK_OK(writer->Append(KnownSequences(0, 40, 1).view()));
  const std::string before = Content(directory / "s.partial");
  CheckEndsWell(Fork([&] {
    // A descriptor that takes the number of the writer's is not closed with it.
    std::array<int, 64> others;
    for (int& other : others) CHECK((other = dup(STDERR_FILENO)) >= 0);
    writer.reset();
    for (const int other : others) CHECK_EQ(close(other), 0);
  }));
  CHECK(Content(directory / "s.partial") == before);
  RecoveredShard recovered;  // the lock is still the parent's
  CHECK(RecoverShard(directory / "s.partial", directory / "s", &recovered).code() ==
        StatusCode::kIo);
  CHECK_OK(writer->Commit());
}

TEST(a_child_keeps_no_lock_of_its_parent) {
  const TemporaryDirectory directory;
  std::unique_ptr<ShardWriter> writer = CreateShard(directory / "s.partial", 0, 1);
  std::unique_ptr<DirectoryLock> lock, again;
  CHECK_OK(DirectoryLock::Acquire(directory / "", &lock));
  CHECK_OK(writer->Append(KnownSequences(0, 40, 1).view()));
  CHECK_OK(writer->Commit());
  const LivingChild child;
  RecoveredShard recovered;
  CHECK(DirectoryLock::Acquire(directory / "", &again).code() == StatusCode::kIo);
  CHECK(RecoverShard(directory / "s.partial", directory / "s", &recovered).code() ==
        StatusCode::kIo);
  // As when the parent dies.
  lock->Release();
  writer.reset();
  CHECK_OK(DirectoryLock::Acquire(directory / "", &again));
  CHECK_OK(RecoverShard(directory / "s.partial", directory / "s", &recovered));
  CHECK_EQ(recovered.totals.num_sequences, uint64_t{40});
}

TEST(a_writer_writes_on_while_another_thread_forks) {
  constexpr int kShards = 40;
  const TemporaryDirectory directory;
  const KnownSequences content(0, kShards, 1);
  const std::string prefix = directory / "";
  std::vector<ShardRow> rows;
  std::atomic<bool> done = false;
  RunThreads(2, [&](int i) {
    if (i == 0) {
      const AtTheEnd at_the_end{done};
      for (size_t shard = 0; shard < kShards; ++shard) {
        const std::string path = directory / std::to_string(shard).c_str();
        const auto writer = CreateShard(path + ".partial", shard, 1);
        CHECK_OK(writer->Append(KnownSequences(static_cast<int64_t>(shard), 1, 1).view()));
        rows.push_back(FinishShard(writer.get(), path));
      }
    }
    while (!done)
      CheckEndsWell(Fork([&] {
        for (int file = 0; file < 64; ++file) CHECK(!IsOpenIn(prefix, file));
      }));
  });
  std::unique_ptr<CacheReader> reader;
  CHECK_OK(CacheReader::Open(rows, KnownHeader(1).config, {}, CheckPayload::kYes, &reader));
  CheckAll(content, *reader, kShards);
}

int main() { return RunAll(); }
