#pragma once

#include "moe/all_to_all_route.hpp"
#include "moe/dispatcher.hpp"

namespace konclave {

/// Rows go by all-to-all over ep to their places and are gathered over etp, likewise; results are
/// summed over etp and go back over ep. See DispatchRound for the orders. What a rank sends to its
/// own experts is written to its place there at once and, as a rule, read from there in the end, so
/// that on one rank nothing is exchanged.
/// Returned rows and values are in the order at home.
class AllToAllDispatch final : public Dispatch {
 public:
  AllToAllDispatch(AllToAllRoute route, std::vector<Round> rounds)
      : Dispatch(std::move(rounds), {route.kept, route.overlaps}), route_(std::move(route)) {}

  const DispatchRound& leg(std::size_t round) const { return route_.legs[round]; }

  std::unique_ptr<WayThere> way_there(const Context& context,
                                      std::vector<Brought> brought) const override;
  AnyView returned_rows(const Context& context, const AnyView& y) const override;
  AnyView returned_values(const Context& context, DType type) const override;
  std::unique_ptr<WayBack> way_back(const Context& context,
                                    std::vector<AnyView> returned) const override;
  void combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
               const AnyView& y) const override;
  AnyView combine_with_values(const Context& context, const AnyIn& returned,
                              const AnyView& returned_values, const AnyView& y) const override;

 private:
  /// Where rows that come to `returned` are worked on: there, if they stay.
  std::vector<AnyView> workplaces(const Context& context, const AnyView& returned,
                                  std::size_t turns) const;

  AllToAllRoute route_;
};

}  // namespace konclave
