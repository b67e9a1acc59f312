// The threads of parallel_for: workers that wait a moment for the next job, then sleep. The caller works too, and takes
// over what a worker that has not woken up yet was to do: on a busy machine nobody waits for a thread without a core.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

namespace deepseek {

class ThreadPool {
 public:
  using Piece = void (*)(void* context, int piece);  // does not throw

  // Calls fn for every piece of [0, threads * each) once; returns when all are done. Thread i begins with its own
  // pieces [i * each, (i + 1) * each), so that a thread meets the same part of the data from job to job, and then takes
  // over those that others have not begun. One job at a time: callers take turns.
  void run(int threads, int each, Piece fn, void* context);

  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  // Its threads would outlive it: a pool is never destroyed.
  ~ThreadPool() = delete;

 private:
  enum State : int { kIdle, kAsleep, kPosted, kRunning };
  struct Job {
    Piece fn;
    void* context;
    int threads, each;
    int core;  // of the caller
  };
  struct alignas(64) Place {
    std::atomic<int> next{0};  // of this thread's pieces: taken by whoever counts it up
    alignas(64) std::atomic<int> state{kIdle};
    const Job* job = nullptr;
  };

  int grow(int threads);
  void work(const Job& job, int from);
  void take_pieces(const Job& job, int from);
  [[noreturn]] void serve(Place& mine, int index);

  std::vector<std::unique_ptr<Place>> places_;  // 0: the caller's
  int started_ = 1;                             // places that have a thread
};

}  // namespace deepseek
