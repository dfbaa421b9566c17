#pragma once

#include "moe/dispatch_rounds.hpp"
#include "moe/dispatcher.hpp"

#include <optional>

namespace konclave {

/// Rows go by all-to-all over ep and are gathered over etp; results are summed over etp and go back
/// over ep. A row has a place in the order of sending (on the side of the tokens), one in the order
/// of arrival (source rank, expert, token) and one in the local order of its round. On one rank
/// nothing is exchanged and the experts work in place; with as many ranks of ep as experts nothing
/// is permuted on the experts' side.
/// Returned rows (A,H) and values (A) are in the order of sending.
class AllToAllDispatch final : public Dispatch {
 public:
  struct Ranks {
    Groups::Group ep, etp;
  };
  /// Where the tokens' rows are in the order of sending.
  struct Sending {
    View1<const int> token_offsets;  ///< (T+1), assignments of each token
    View1<const int> row_of;         ///< (A), row of an assignment
  };
  /// What moves in a round. The orders are between local order and order of arrival, one the
  /// inverse of the other; none where they are the same.
  struct Leg {
    DispatchRound counts;
    View1<const int> arrival_of, local_of;
  };

  AllToAllDispatch(Ranks ranks, std::vector<Round> rounds, Sending sending, std::vector<Leg> legs);

  const Leg& leg(std::size_t round) const { return legs_[round]; }

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
    AnyView sent;                    ///< by this rank
    AnyView arrived;                 ///< over ep
    AnyView gathered;                ///< all of the round, in the order of arrival
    std::optional<Request> request;  ///< what has to be waited for next
  };

  bool alone() const { return ranks_.ep->size() == 1 && ranks_.etp->size() == 1; }
  std::int64_t assignments() const { return static_cast<std::int64_t>(sending_.row_of.size()); }

  /// Memory for something like x on its way to `rows`. Where nothing has to be done to it the
  /// stations are one, the last of them `rows` itself.
  Transfer make_transfer(const Context& context, const DispatchRound& counts,
                         const View1<const int>& arrival_of, const AnyIn& x,
                         const AnyView& rows) const;
  void start_bringing(const Context& context, const DispatchRound& counts,
                      Transfer& transfer) const;
  void gather(const Context& context, const DispatchRound& counts, Transfer& transfer) const;
  void finish_bringing(const Context& context, const View1<const int>& arrival_of,
                       Transfer& transfer, const AnyView& rows) const;

  /// y = this rank's rows of the sum of the partial results of etp.
  void sum_over_etp(const Context& context, const DispatchRound& counts, const AnyIn& partial,
                    const AnyView& y) const;
  /// Nothing is to be waited for with one rank of ep.
  std::optional<Request> start_giving_back(const Context& context, const Leg& leg,
                                           const AnyIn& rows, const AnyView& returned) const;

  Ranks ranks_;
  Sending sending_;
  std::vector<Leg> legs_;
};

}  // namespace konclave
