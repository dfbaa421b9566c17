#pragma once

#include "moe/all_to_all_route.hpp"
#include "moe/dispatcher.hpp"

#include <deque>
#include <optional>
#include <vector>

namespace konclave {

/// Two hops: over ep to the places of arrival, and from there over etp to those in local order.
/// Rows for this rank's own experts are written to where they arrive.
///
/// With overlap and one hop all rounds set off over ep at once, if there is room for them; else one
/// is under way while experts work on another. With two hops rows of the next round are on the
/// second and those of the next but one on the first. A round sets off over etp when the one before
/// is there: all ranks start hops in one order, and nothing is sent on by a poll.
class AllToAllWayThere final : public WayThere {
 public:
  /// `route` has to outlive it.
  AllToAllWayThere(const Context& context, const AllToAllRoute& route,
                   std::vector<Dispatch::Brought> brought);

  void start(const Context& context) override;
  void arrive(const Context& context, std::size_t round) override;
  void poll() override;

 private:
  /// A tensor on its way.
  struct Lane {
    Dispatch::Brought what;
    std::vector<AnyView> sent;     ///< of each round, by this rank to others
    std::vector<AnyView> arrived;  ///< over ep; with one rank of etp that is `what.to`
    std::deque<Request> over_ep;
    std::optional<Request> over_etp;
  };

  bool gathers() const { return route_.ranks.etp->size() > 1; }
  /// Two hops may share a link, on which later rounds would be in the way of the next one.
  bool all_at_once() const { return route_.kept && !gathers(); }
  /// The next round goes over ep; the next one that went over ep goes over etp; a round is there.
  void send(const Context& context);
  void pass_on(const Context& context);
  void receive(const Context& context, std::size_t round);
  /// These for all rounds before `rounds`.
  void send_before(const Context& context, std::size_t rounds);
  void pass_on_before(const Context& context, std::size_t rounds);

  const AllToAllRoute& route_;
  std::vector<Lane> lanes_;
  std::size_t sent_ = 0, passed_on_ = 0;  ///< rounds
};

}  // namespace konclave
