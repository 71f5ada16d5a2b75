// Batches made ahead: their order, their errors, their end, and forks. For ThreadSanitizer too.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <future>
#include <stdexcept>
#include <thread>

#include "known_pieces.h"
#include "sparselogits/prefetcher.h"
#include "threads.h"

using namespace sparselogits;
using namespace sparselogits::testing;
using namespace std::chrono_literals;

namespace {

std::unique_ptr<Prefetcher> Start(int num_threads) {
  std::unique_ptr<Prefetcher> prefetcher;
  CHECK_OK(Prefetcher::Start(num_threads, &prefetcher));
  return prefetcher;
}

// Work that takes a moment, and tells by its width which one it was.
Prefetcher::Work Numbered(uint64_t number, std::chrono::microseconds moment) {
  return [=](PieceBatch* batch) {
    std::this_thread::sleep_for(moment);
    batch->width = number;
    return Status::Ok();
  };
}

// Waits for the next batch.
Status Next(Prefetcher* prefetcher, PieceBatch* batch) {
  Status status;
  while (!prefetcher->Next(20ms, &status, batch)) {
  }
  return status;
}

uint64_t NextNumber(Prefetcher* prefetcher) {
  PieceBatch batch;
  CHECK_OK(Next(prefetcher, &batch));
  return batch.width;
}

}  // namespace

TEST(batches_come_in_the_order_in_which_they_were_asked_for) {
  for (const int num_threads : {1, 2, 5}) {
    const std::unique_ptr<Prefetcher> prefetcher = Start(num_threads);
    std::mt19937 random(3);
    uint64_t asked = 0, seen = 0;
    while (seen < 300) {
      while (asked < seen + 8)
        prefetcher->Submit(Numbered(asked++, std::chrono::microseconds(random() % 300)));
      CHECK_EQ(prefetcher->num_coming(), size_t{8});
      CHECK_EQ(NextNumber(prefetcher.get()), seen++);
    }
  }
}

TEST(an_early_batch_that_takes_long_holds_back_the_others_and_loses_none) {
  const std::unique_ptr<Prefetcher> prefetcher = Start(2);
  std::promise<void> go_on;
  prefetcher->Submit([done = go_on.get_future().share()](PieceBatch* batch) {
    done.wait();
    batch->width = 100;
    return Status::Ok();
  });
  std::atomic<int> made = 0;
  for (uint64_t i = 101; i < 105; ++i)
    prefetcher->Submit([&made, i](PieceBatch* batch) {
      batch->width = i;
      ++made;
      return Status::Ok();
    });
  while (made < 4) std::this_thread::yield();
  Status status;
  PieceBatch batch;
  CHECK(!prefetcher->Next(1ms, &status, &batch));
  go_on.set_value();
  for (uint64_t i = 100; i < 105; ++i) CHECK_EQ(NextNumber(prefetcher.get()), i);
}

TEST(an_error_or_an_exception_comes_in_the_place_of_its_batch) {
  const std::unique_ptr<Prefetcher> prefetcher = Start(3);
  for (uint64_t i = 0; i < 12; ++i)
    if (i % 4 == 1)
      prefetcher->Submit([](PieceBatch*) { return Status::Corruption("rot").In("file").At(7); });
    else if (i % 4 == 3)
      prefetcher->Submit([](PieceBatch*) -> Status { throw std::bad_alloc(); });
    else
      prefetcher->Submit(Numbered(i, 50us));
  for (uint64_t i = 0; i < 12; ++i) {
    PieceBatch batch;
    bool threw = false;
    try {
      const Status status = Next(prefetcher.get(), &batch);
      CHECK_EQ(status.ok(), i % 4 != 1);
      if (!status.ok()) CHECK_EQ(status.path() + std::to_string(status.offset()), "file7");
      if (status.ok()) CHECK_EQ(batch.width, i);
    } catch (const std::bad_alloc&) {
      threw = true;
    }
    CHECK_EQ(threw, i % 4 == 3);
  }
  CHECK_EQ(prefetcher->num_coming(), size_t{0});
}

TEST(its_end_waits_for_what_is_being_made_and_makes_nothing_more) {
  for (const int num_threads : {1, 4}) {
    std::atomic<int> begun = 0, ended = 0;
    {
      const std::unique_ptr<Prefetcher> prefetcher = Start(num_threads);
      for (int i = 0; i < 100; ++i)
        prefetcher->Submit([&](PieceBatch*) {
          ++begun;
          std::this_thread::sleep_for(2ms);
          ++ended;
          return Status::Ok();
        });
      while (begun == 0) std::this_thread::yield();
    }
    CHECK_EQ(begun.load(), ended.load());
    CHECK(begun < 100);
  }
}

TEST(no_threads_are_refused) {
  std::unique_ptr<Prefetcher> prefetcher;
  CHECK(Prefetcher::Start(0, &prefetcher).code() == StatusCode::kInvalidArgument);
  CHECK(prefetcher == nullptr);
}

TEST(prefetchers_that_share_a_reader_and_its_memory_get_what_each_would_get_alone) {
  for (const size_t max_open : {kMaxOpenShards, size_t{1}}) {
    const KnownCache cache(4, 6, 1);
    const std::unique_ptr<CacheReader> opened = cache.Open(max_open);
    const auto pool = std::make_shared<MemoryPool>(24);
    const PieceReader reader({opened.get()}, kPadToken, pool);
    RunThreads(3, [&](int thread) {
      const std::unique_ptr<Prefetcher> prefetcher = Start(2);
      std::mt19937 random(static_cast<uint32_t>(thread));
      std::deque<Pieces> coming;
      PieceBatch kept;  // of the first plan, all the time
      Pieces first;
      for (int i = 0; i < 60; ++i) {
        while (coming.size() < 3) {
          coming.push_back(RandomPieces(&random, 1, 24, 3));
          prefetcher->Submit([&reader, pieces = coming.back()](PieceBatch* batch) {
            return reader.Read(pieces, batch);
          });
        }
        PieceBatch batch;
        CHECK_OK(Next(prefetcher.get(), &batch));
        CheckPieces({&cache.content}, coming.front(), batch);
        if (i == 0) {
          kept = std::move(batch);
          first = coming.front();
        } else {
          for (Buffer<int64_t>* const buffer : {&batch.input_ids, &batch.labels, &batch.offsets})
            pool->Give(buffer);
          pool->Give(&batch.token_ids);
          pool->Give(&batch.weights);
        }
        coming.pop_front();
      }
      CheckPieces({&cache.content}, first, kept);
    });
  }
}

TEST(a_child_drops_what_it_inherits_and_starts_its_own) {
  const KnownCache cache(2, 6, 1);
  const std::unique_ptr<CacheReader> opened = cache.Open();
  const PieceReader reader({opened.get()}, kPadToken, std::make_shared<MemoryPool>(24));
  std::mt19937 random(5);
  const Pieces pieces = RandomPieces(&random, 1, 12, 3);
  const auto submit = [&](Prefetcher* prefetcher) {
    prefetcher->Submit([&](PieceBatch* batch) { return reader.Read(pieces, batch); });
  };
  const auto check_next = [&](Prefetcher* prefetcher) {
    PieceBatch batch;
    CHECK_OK(Next(prefetcher, &batch));
    CheckPieces({&cache.content}, pieces, batch);
  };
  std::unique_ptr<Prefetcher> prefetcher = Start(2);
  for (int round = 0; round < 10; ++round) {
    submit(prefetcher.get());
    submit(prefetcher.get());
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    // Their allocators (GCC 12) hang in a child that was forked while another thread allocated.
    check_next(prefetcher.get());
    check_next(prefetcher.get());
#endif
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(30);
      try {
        prefetcher.reset();
#if !defined(__SANITIZE_THREAD__)  // which lets such a child start no thread
        prefetcher = Start(2);
        submit(prefetcher.get());
        check_next(prefetcher.get());
        prefetcher.reset();
#endif
      } catch (const std::exception& error) {
        std::fprintf(stderr, "in the child: %s\n", error.what());
        _exit(1);
      }
      _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    while (prefetcher->num_coming() > 0) check_next(prefetcher.get());
  }
}

int main() { return RunAll(); }
