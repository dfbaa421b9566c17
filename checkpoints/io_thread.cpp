#include "checkpoints/io_thread.hpp"

#include "base/error.hpp"

#include <hdf5.h>

#include <utility>

namespace konclave {

IoThread::IoThread() {
  // At exit HDF5 would close what is open, in the thread that ends the process and while this one
  // may be inside a call.
  H5dont_atexit();
  // The parallel HDF5 hangs an attribute on MPI_COMM_SELF; I/O threads do not call MPI. By it
  // MPI_Finalize shuts HDF5 down: this thread is idle then, as nobody waits for it.
  require(H5open() >= 0, "HDF5 cannot be set up", ExitCode::resource);
  std::thread thread([this] { serve(); });
  id_ = thread.get_id();
  thread.detach();
}

bool IoThread::runs_the_caller() const { return std::this_thread::get_id() == id_; }

void IoThread::submit(std::function<void()> task) {
  require(!runs_the_caller(), "work on the I/O thread waits for the I/O thread");
  {
    const std::scoped_lock lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  arrival_.notify_one();
}

void IoThread::serve() {
  while (true) next_task()();
}

std::function<void()> IoThread::next_task() {
  std::unique_lock lock(mutex_);
  arrival_.wait(lock, [this] { return !tasks_.empty(); });
  std::function<void()> task = std::move(tasks_.front());
  tasks_.pop_front();
  return task;
}

// Never deleted, hence the pointer; see the class.
IoThread& io_thread() {
  static IoThread* const thread = new IoThread;
  return *thread;
}

}  // namespace konclave
