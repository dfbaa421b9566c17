#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>

namespace konclave {

/// The one thread of this process that calls HDF5; reached by io_thread(). HDF5 is one set of
/// tables for the whole process, and most builds of it, Debian's with MPI among them, allow one
/// thread at a time. Whatever holds an HDF5 identifier lives and ends in work that runs here.
///
/// It is never joined and the object never destroyed: a process that ends, in good order or by
/// MPI_Abort, does not wait for a file system that hangs.
class IoThread {
 public:
  ~IoThread() = delete;
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  /// Runs `work()` on the thread, after what was handed in before, and waits for it. Gives back
  /// what it returns and throws what it throws, when all that it held is gone. Several threads may
  /// call at once; work that runs here must not.
  template <typename Work> std::invoke_result_t<Work&> run(Work work) {
    using Task = std::packaged_task<std::invoke_result_t<Work&>()>;
    // Shared, as the thread is still busy with it for a moment when the result is there.
    const auto task = std::make_shared<Task>(std::ref(work));
    auto result = task->get_future();
    submit([task] { (*task)(); });
    return result.get();
  }

  /// Whether the caller is this thread.
  bool runs_the_caller() const;

 private:
  friend IoThread& io_thread();

  IoThread();

  void submit(std::function<void()> task);
  [[noreturn]] void serve();
  std::function<void()> next_task();

  std::mutex mutex_;
  std::condition_variable arrival_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  std::thread::id id_;
};

/// Starts the thread when it is first called. HDF5 then sets itself up with calls of MPI, where MPI
/// runs: let that be the thread that calls MPI.
IoThread& io_thread();

}  // namespace konclave
