#include "comm/request.hpp"

#include "base/error.hpp"

#include <exception>
#include <utility>

namespace konclave {

Request::Request(std::string what, std::unique_ptr<Pending> pending)
    : what_(std::move(what)), pending_(std::move(pending)) {}

Request::~Request() {
  if (pending_ == nullptr) return;
  if (std::uncaught_exceptions() == 0) {
    wait(ExecSpace());
  } else {
    // MPI may still write to what the operation owns: leave it to the end of the process.
    static_cast<void>(pending_.release());
  }
}

void Request::wait(const ExecSpace& exec) {
  require(pending_ != nullptr, what_ + ": waited for a second time");
  const std::unique_ptr<Pending> pending = std::move(pending_);
  pending->finish(exec);
}

bool Request::poll() {
  require(pending_ != nullptr, what_ + ": asked after it was waited for");
  return pending_->poll();
}

}  // namespace konclave
