#pragma once

#include "moe/all_gather_dispatch.hpp"

#include <optional>

namespace konclave {

/// Everything of all ranks comes to each, which then picks what its experts need.
class AllGatherWayThere final : public WayThere {
 public:
  /// `route` has to outlive it.
  AllGatherWayThere(const Context& context, const AllGatherRoute& route,
                    std::vector<Dispatch::Brought> brought);

  void start(const Context& context) override;
  void arrive(const Context& context, std::size_t round) override;
  void poll() override;

 private:
  /// A tensor on its way: rows of tokens, or values of assignments.
  struct Lane {
    Dispatch::Brought what;
    const std::vector<std::int64_t>& counts;  ///< of each rank
    AnyView all;                              ///< of all ranks
    std::optional<Request> request;
  };

  void take_memory(const Context& context);
  void send(const Context& context);

  const AllGatherRoute& route_;
  std::vector<Lane> lanes_;
};

/// What the experts of a rank made of each token is summed, there and then over the ranks. Values
/// go likewise, each in a sum with zeros. Nothing goes beside it: there is no other round.
class AllGatherWayBack final : public WayBack {
 public:
  AllGatherWayBack(const AllGatherRoute& route, std::vector<AnyView> returned,
                   std::vector<std::vector<AnyView>> work)
      : WayBack(std::move(work)), route_(route), returned_(std::move(returned)) {}

  void give(const Context& context, std::size_t round) override;
  void finish(const Context&) override {}
  void poll() override {}

 private:
  const AllGatherRoute& route_;
  std::vector<AnyView> returned_;
};

}  // namespace konclave
