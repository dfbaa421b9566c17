#pragma once

#include "comm/request.hpp"
#include "tensor/arena.hpp"

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace konclave {

/// So many buckets of gradients or values are under way at once where that overlaps with computing.
inline constexpr int kBucketsUnderWay = 4;

/// Communications that go on beside computing: a few at a time, in the order in which they were
/// added, which is the same on all ranks and so is the order of their starts. They get on in `poll`
/// and in the functions that wait, and nowhere else.
class ExchangeQueue {
 public:
  struct Exchange {
    /// Memory of the arena is this exchange's own until `finish` returned.
    std::function<Request(Arena& memory)> start;
    std::function<void()> finish;  ///< when the request has been waited for
  };

  /// `at_once` of them are under way at most.
  ExchangeQueue(MemoryAccount& account, std::string label, int at_once);

  void add(Exchange exchange) { waiting_.push_back(std::move(exchange)); }
  bool empty() const { return waiting_.empty() && under_way_.empty(); }

  /// Finishes those that are done, in their order, and starts others in their place.
  void poll(const ExecSpace& exec);
  /// Waits for the oldest one.
  void finish_one(const ExecSpace& exec);
  /// Waits for all.
  void finish(const ExecSpace& exec);

 private:
  struct UnderWay {
    Request request;
    std::function<void()> finish;
    std::unique_ptr<Arena> memory;
  };

  void start_waiting();

  MemoryAccount& account_;
  std::string label_;
  int at_once_;
  std::deque<Exchange> waiting_;
  std::deque<UnderWay> under_way_;
  std::vector<std::unique_ptr<Arena>> idle_memory_;
};

}  // namespace konclave
