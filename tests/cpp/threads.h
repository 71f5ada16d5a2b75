// Runs a test's work in several threads at once.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sparselogits::testing {

// Set when it goes out of scope, by a failure too: for threads that work until another one is done.
struct AtTheEnd {
  ~AtTheEnd() { flag = true; }
  std::atomic<bool>& flag;
};

// Calls work(0) ... work(count - 1) in a thread each, all at the same moment, and throws what the
// first one that failed has thrown.
template <typename Work>
void RunThreads(int count, Work work) {
  std::atomic<int> waiting = count;
  std::mutex mutex;
  std::exception_ptr failure;
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      try {
        work(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (failure == nullptr) failure = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace sparselogits::testing
