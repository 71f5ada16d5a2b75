// Makes batches ahead of their use, in threads of its own.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "sparselogits/piece_reader.h"

namespace sparselogits {

// Hands batches out in the order in which they were asked for, however long each of them takes.
// In the child of a fork, which has none of the threads, it may be destroyed and nothing else.
class Prefetcher {
 public:
  // Runs in a thread of the prefetcher. What it throws is thrown again by Next().
  using Work = std::function<Status(PieceBatch*)>;

  static Status Start(int num_threads, std::unique_ptr<Prefetcher>* out);
  // Waits for the batches that are being made; those that wait for a thread are never made.
  ~Prefetcher();
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  void Submit(Work work);
  // How many batches were asked for and not handed out yet.
  size_t num_coming() const;
  // Waits up to `timeout` for the batch of the earliest Submit() that was not handed out yet. False
  // where it is not done by then. Else *status says how its work ended, and *batch is what it made.
  // REQUIRES: num_coming() > 0.
  bool Next(std::chrono::milliseconds timeout, Status* status, PieceBatch* batch);

 private:
  struct State;

  explicit Prefetcher(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace sparselogits
