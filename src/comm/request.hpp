#pragma once

#include "tensor/kokkos.hpp"

#include <memory>
#include <string>

namespace konclave {

/// One communication under way. Buffers handed to `start_...` stay untouched until `wait` returned.
/// It must be waited for: the destructor does so for a forgotten one, on a default instance of
/// ExecSpace, but not while unwinding, when the other ranks may never get there.
class Request {
 public:
  /// What a transport leaves behind to be finished; it owns what must live until then.
  class Pending {
   public:
    virtual ~Pending() = default;
    /// After this, work that is put on `exec` sees what was received. Called once.
    virtual void finish(const ExecSpace& exec) = 0;
    /// Lets what is under way go on, without waiting; whether `finish` would not wait either.
    virtual bool poll() = 0;
  };

  /// `what` names collective and group in messages.
  Request(std::string what, std::unique_ptr<Pending> pending);
  Request(Request&& other) noexcept = default;
  Request& operator=(Request&& other) = delete;  // could have to wait
  ~Request();

  /// Throws Error when it was waited for before.
  void wait(const ExecSpace& exec);
  /// Whether `wait` would return at once. A library that moves data only inside its own calls does
  /// so here.
  bool poll();

 private:
  std::string what_;
  std::unique_ptr<Pending> pending_;
};

}  // namespace konclave
