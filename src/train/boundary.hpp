#pragma once

#include "comm/request.hpp"
#include "parallel/schedule.hpp"
#include "tensor/arena.hpp"

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// A tensor at the boundary of two stages of a pipeline, in memory of its own.
struct Boundary {
  Boundary(MemoryAccount& account, const std::string& label);

  Arena memory;
  AnyView view;
  std::optional<Request> on_its_way;  ///< here, or to another stage
};

/// Boundary tensors of one kind, whose memory is kept from step to step.
class BoundaryPool {
 public:
  BoundaryPool(MemoryAccount& account, std::string label)
      : account_(account), label_(std::move(label)) {}

  /// One with nothing in it. At most `most` exist; then the longest sent one is waited for.
  std::unique_ptr<Boundary> take(const ExecSpace& exec, int most);
  /// It may still be on its way to another stage.
  void give_back(std::unique_ptr<Boundary> boundary) { free_.push_back(std::move(boundary)); }
  /// Lets those get on that are on their way.
  void poll();
  void wait(const ExecSpace& exec);

 private:
  MemoryAccount& account_;
  std::string label_;
  std::deque<std::unique_ptr<Boundary>> free_;  ///< longest free first
  int made_ = 0;
};

/// What a stage receives in a step for its forward or its backward pieces of work. The next one is
/// always on its way: from the start, and from when the one before has arrived. So messages are
/// received in the order of the schedule, and one tensor more is held than without.
class Arrivals {
 public:
  /// Takes a tensor and starts to receive it.
  using Start = std::function<std::unique_ptr<Boundary>(const PipelineWork&)>;
  /// `expected`: the pieces of work that need one, in the order of the schedule.
  Arrivals(std::vector<PipelineWork> expected, Start start);

  /// Waits for the next one, which is for `work`.
  std::unique_ptr<Boundary> receive(const ExecSpace& exec, const PipelineWork& work);
  void poll();

 private:
  void start_next();

  std::vector<PipelineWork> expected_;
  Start start_;
  std::size_t started_ = 0;
  std::unique_ptr<Boundary> next_;
};

}  // namespace konclave
