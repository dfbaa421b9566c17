#pragma once

#include "layers/context.hpp"

#include <cstddef>
#include <utility>
#include <vector>

namespace konclave {

/// Rows of all rounds of a dispatch on their way to the experts. Where rounds overlap, the memory
/// that it needs is taken of scratch when it is made: keep that for as long as it lives.
class WayThere {
 public:
  virtual ~WayThere() = default;

  /// With overlap, the first round sets off: ahead of work that has no use for the rows.
  virtual void start(const Context& context) = 0;
  /// The rows of a round are there; with overlap the next ones are under way then. All rounds in
  /// ascending order.
  virtual void arrive(const Context& context, std::size_t round) = 0;
  /// Lets what is under way go on.
  virtual void poll() = 0;
};

/// The way back of what the experts make of them, in the same memory.
class WayBack {
 public:
  virtual ~WayBack() = default;

  /// Where the experts work on a round, (R,H) and (R): of type and width of what is brought home.
  const AnyView& rows(std::size_t round) const { return work_.front().at(round); }
  const AnyView& values(std::size_t round) const { return work_.back().at(round); }
  const std::vector<AnyView>& rows() const { return work_.front(); }

  /// What is in a round's workplace sets off; with overlap it may be under way then, and be so for
  /// longer than the next round is worked on. All rounds in ascending order.
  virtual void give(const Context& context, std::size_t round) = 0;
  /// All rounds are back.
  virtual void finish(const Context& context) = 0;
  /// Lets what is under way go on.
  virtual void poll() = 0;

 protected:
  explicit WayBack(std::vector<std::vector<AnyView>> work) : work_(std::move(work)) {}

 private:
  std::vector<std::vector<AnyView>> work_;  ///< of rows and, if there are any, values; each round
};

}  // namespace konclave
