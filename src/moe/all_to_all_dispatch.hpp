#pragma once

#include "moe/dispatch_rounds.hpp"
#include "moe/dispatcher.hpp"
#include "ops/permute.hpp"

#include <optional>

namespace konclave {

/// Rows go by all-to-all over ep to their places and are gathered over etp, likewise; results are
/// summed over etp and go back over ep. See DispatchRound for the orders. What a rank sends to its
/// own experts is written to its place there at once and, as a rule, read from there in the end, so
/// that on one rank nothing is exchanged.
/// Returned rows and values are in the order at home.
class AllToAllDispatch final : public Dispatch {
 public:
  struct Ranks {
    Groups::Group ep, etp;
  };
  /// Where the tokens' rows are at home.
  struct Home {
    View1<const int> token_offsets;  ///< (T+1), assignments of each token
    ops::RowPlaces places;           ///< of assignments
    std::int64_t rows = 0;           ///< how many places there are
  };

  AllToAllDispatch(Ranks ranks, std::vector<Round> rounds, Home home,
                   std::vector<DispatchRound> legs);

  const DispatchRound& leg(std::size_t round) const { return legs_[round]; }

  void bring(const Context& context, std::size_t round, const AnyIn& x,
             const AnyView& rows) const override;
  void bring(const Context& context, std::size_t round, const AnyIn& x, const AnyView& rows,
             const AnyIn& weights, const AnyView& row_weights) const override;
  AnyView returned_rows(const Context& context, const AnyView& y) const override;
  AnyView returned_values(const Context& context, DType type) const override;
  AnyView workplace(const Context& context, std::size_t round,
                    const AnyView& returned) const override;
  void give_back(const Context& context, std::size_t round, const AnyIn& rows,
                 const AnyView& returned) const override;
  void give_back(const Context& context, std::size_t round, const AnyIn& rows,
                 const AnyView& returned, const AnyIn& values,
                 const AnyView& returned_values) const override;
  void combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
               const AnyView& y) const override;
  AnyView combine_with_values(const Context& context, const AnyIn& returned,
                              const AnyView& returned_values, const AnyView& y) const override;

 private:
  /// A tensor on its way to the experts.
  struct Transfer {
    AnyView sent;                    ///< by this rank to others
    AnyView arrived;                 ///< over ep
    AnyView gathered;                ///< all of the round
    std::optional<Request> request;  ///< what has to be waited for next
  };

  /// Memory for something like x on its way to `rows`: where nothing is gathered that is where it
  /// arrives.
  Transfer make_transfer(const Context& context, const DispatchRound& leg, const AnyIn& x,
                         const AnyView& rows) const;
  void start_bringing(const Context& context, const DispatchRound& leg, const RowBlocks& arrival,
                      Transfer& transfer) const;
  void gather(const Context& context, const DispatchRound& leg, Transfer& transfer) const;

  /// y = this rank's rows of the sum of the partial results of etp, in the order of arrival.
  void sum_over_etp(const Context& context, const DispatchRound& leg, const AnyIn& partial,
                    const AnyView& y) const;
  /// Nothing is to be waited for with one rank of ep.
  std::optional<Request> start_giving_back(const Context& context, const DispatchRound& leg,
                                           const AnyIn& rows, const AnyView& returned) const;

  Ranks ranks_;
  Home home_;
  std::vector<DispatchRound> legs_;
};

}  // namespace konclave
