#include "sparselogits/prefetcher.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace sparselogits {
namespace {

// Signals go to the threads of the program, which may be waiting for them; but those that a thread
// brings on itself, by reading a file that became shorter, have to arrive where they arise.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    for (const int own : {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&all, own);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

struct Prefetcher::State {
  struct Item {
    Work work;
    PieceBatch batch;
    Status status;
    std::exception_ptr exception;
    bool done = false;
  };

  void Run();

  const pid_t process = getpid();
  std::mutex mutex;
  std::condition_variable has_work, has_batch;
  std::deque<std::unique_ptr<Item>> items;  // in the order of Submit(), until they are handed out
  size_t num_started = 0;                   // of the items, from the front
  bool stopping = false;
  std::vector<std::thread> threads;
};

void Prefetcher::State::Run() {
  std::unique_lock lock(mutex);
  for (;;) {
    has_work.wait(lock, [this] { return stopping || num_started < items.size(); });
    if (stopping) return;
    Item* const item = items[num_started++].get();  // stays where it is until it is done
    lock.unlock();
    try {
      item->status = item->work(&item->batch);
    } catch (...) {
      item->exception = std::current_exception();
    }
    lock.lock();
    item->done = true;
    has_batch.notify_all();
  }
}

Prefetcher::Prefetcher(std::unique_ptr<State> state) : state_(std::move(state)) {}

Status Prefetcher::Start(int num_threads, std::unique_ptr<Prefetcher>* out) {
  if (num_threads < 1)
    return Status::InvalidArgument("num_threads must be at least 1, got " +
                                   std::to_string(num_threads));
  std::unique_ptr<Prefetcher> prefetcher(new Prefetcher(std::make_unique<State>()));
  State* const state = prefetcher->state_.get();
  const SignalsBlocked blocked;  // which new threads inherit
  try {
    for (int i = 0; i < num_threads; ++i) state->threads.emplace_back([state] { state->Run(); });
  } catch (const std::system_error& error) {
    return Status::Io("cannot start a thread that reads ahead: " + error.code().message(),
                      error.code().value());
  }
  *out = std::move(prefetcher);
  return Status::Ok();
}

Prefetcher::~Prefetcher() {
  if (state_->process != getpid()) {
    // The mutex may be locked for ever and the threads are not there: neither can be destroyed.
    static_cast<void>(state_.release());
    return;
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->has_work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void Prefetcher::Submit(Work work) {
  auto item = std::make_unique<State::Item>();
  item->work = std::move(work);
  {
    const std::lock_guard lock(state_->mutex);
    state_->items.push_back(std::move(item));
  }
  state_->has_work.notify_one();
}

size_t Prefetcher::num_coming() const {
  const std::lock_guard lock(state_->mutex);
  return state_->items.size();
}

bool Prefetcher::Next(std::chrono::milliseconds timeout, Status* status, PieceBatch* batch) {
  std::unique_ptr<State::Item> item;
  {
    std::unique_lock lock(state_->mutex);
    if (!state_->has_batch.wait_for(lock, timeout, [this] { return state_->items.front()->done; }))
      return false;
    item = std::move(state_->items.front());
    state_->items.pop_front();
    --state_->num_started;
  }
  if (item->exception != nullptr) std::rethrow_exception(item->exception);
  *status = std::move(item->status);
  *batch = std::move(item->batch);
  return true;
}

}  // namespace sparselogits
