#pragma once

#include "moe/all_to_all_route.hpp"
#include "moe/dispatcher.hpp"

#include <deque>
#include <optional>
#include <vector>

namespace konclave {

/// Two hops: partial results over etp, to be summed in the order of ranks, and sums over ep to
/// where the tokens are at home. Rows that stay are there when they are summed, or worked on.
///
/// With overlap, a round is on its first hop while experts work on the next one, and on the last
/// one for as long as its memory is not needed.
class AllToAllWayBack final : public WayBack {
 public:
  /// `route` has to outlive it; `work` has the workplaces of each of `returned`.
  AllToAllWayBack(const Context& context, const AllToAllRoute& route, std::vector<AnyView> returned,
                  std::vector<std::vector<AnyView>> work);

  void give(const Context& context, std::size_t round) override;
  void finish(const Context& context) override;
  void poll() override;

 private:
  /// A tensor on its way.
  struct Lane {
    AnyView returned;
    std::vector<AnyView> work;  ///< of each round
    AnyView partial, sum;       ///< of all etp, and of these; rows that stay are summed at home
    std::optional<Request> over_etp;
    std::deque<Request> home;
  };

  bool sums() const { return route_.ranks.etp->size() > 1; }
  void take_memory(const Context& context, std::int64_t arrived);
  /// What goes home of a round: the sums, if there are any.
  AnyView outgoing(const Lane& lane, std::size_t round) const;
  void send_partial(const Context& context, std::size_t round);
  void add_up(const Context& context, Lane& lane, std::size_t round) const;
  void send_home(const Context& context, std::size_t round);
  /// The first hop of a round; and the next one of all that are under way.
  void set_off(const Context& context, std::size_t round);
  void advance(const Context& context);
  void wait_at_home(const Context& context);

  const AllToAllRoute& route_;
  std::vector<Lane> lanes_;
  std::optional<std::size_t> summing_;  ///< the round whose partial results are under way
};

}  // namespace konclave
