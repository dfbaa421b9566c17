#pragma once

#include "comm/transport.hpp"
#include "moe/dispatch_rounds.hpp"
#include "moe/routing_plan.hpp"

#include <memory>
#include <optional>
#include <vector>

namespace konclave {

/// The way of one micro-batch's rows to the experts of all ranks of a group and back, in rounds.
/// A row has a place in the order of sending (on the side of the tokens) and one in the local order
/// (expert, source rank, token) of a round, on the side of the experts.
struct DispatchPlan {
  struct Round {
    DispatchRound counts;
    View1<const int> expert_offsets;  ///< (L+1), local rows of each local expert
    /// Between local order and order of arrival, one the inverse of the other; none where they are
    /// the same.
    View1<const int> arrival_of, local_of;
  };

  std::vector<Round> rounds;
  View1<const int> token_offsets;  ///< (T+1), assignments of each token
  View1<const int> row_of;         ///< (A), row in the order of sending of an assignment
  View1<const int> token_of;       ///< (A), token of such a row
  View1<const int> assignment_of;  ///< (A), assignment of such a row
};

/// Moves rows from tokens to experts and back, over the ranks of an expert-parallel group; every
/// rank of it calls the same functions in the same order. With one rank and one round a dispatch is
/// a permutation; with as many ranks as experts nothing is permuted on the experts' side.
/// Shapes  x, y (T,H)   rows (R,H) and values (R) of a round in local order   sent rows (A,H) and
/// values (A) in the order of sending.    H and the types are free.
class Dispatcher {
 public:
  /// `receive_budget`: most rows that a rank receives in a round; 0 for no bound.
  Dispatcher(std::shared_ptr<const Transport> ep, int num_experts, std::int64_t receive_budget);

  int ranks() const { return ep_->size(); }
  int rank() const { return ep_->rank(); }

  /// Exchanges the counts and lays down the rounds. Waits for `exec`, once; on one rank without a
  /// budget there is nothing to exchange, and it does not. Memory of the plan is an activation.
  DispatchPlan plan(const Context& context, const RoutingPlan& routing) const;

  /// rows = those of x that the round brings to the local experts.
  void dispatch(const Context& context, const DispatchPlan& plan, const DispatchPlan::Round& round,
                const AnyIn& x, const AnyView& rows) const;
  /// The same with the weights (A) of the assignments: the weight of each row goes along.
  void dispatch(const Context& context, const DispatchPlan& plan, const DispatchPlan::Round& round,
                const AnyIn& x, const AnyView& rows, const AnyIn& weights,
                const AnyView& row_weights) const;

  /// Where the experts work on a round: (R,H) or (R), of the type and width of `sent`. What is
  /// there in the end, give_back brings to `sent`; on one rank it is the same memory.
  AnyView workplace(const Context& context, const DispatchPlan::Round& round,
                    const AnyView& sent) const;
  /// What the experts made of a round's rows goes back: fills this round's part of `sent`.
  void give_back(const Context& context, const DispatchPlan::Round& round, const AnyIn& rows,
                 const AnyView& sent) const;
  /// The same with a value for each row.
  void give_back(const Context& context, const DispatchPlan::Round& round, const AnyIn& rows,
                 const AnyView& sent, const AnyIn& values, const AnyView& sent_values) const;

  /// y[t] = sum over the assignments of t of their rows, in ascending order of expert. Overwrites
  /// y. Forward the rows come weighted; backward this is the gradient of dispatch.
  void combine(const Context& context, const DispatchPlan& plan, const AnyIn& sent,
               const AnyView& y) const;
  /// The values, back in the order of assignments.
  void values_of_assignments(const Context& context, const DispatchPlan& plan, const AnyIn& sent,
                             const AnyView& values) const;

 private:
  DispatchCounts exchange_counts(const Context& context, const RoutingPlan& routing) const;
  /// A tensor on its way.
  struct Transfer {
    AnyView arrived;
    std::optional<Request> request;  ///< none on one rank
  };
  Transfer start_dispatch(const Context& context, const DispatchRound& counts,
                          const View1<const int>& arrival_of, const AnyIn& x,
                          const View1<const int>& source, const AnyView& rows) const;
  void finish_dispatch(const Context& context, const View1<const int>& arrival_of,
                       Transfer& transfer, const AnyView& rows) const;
  Transfer start_giving_back(const Context& context, const DispatchPlan::Round& round,
                             const AnyIn& rows, const AnyView& sent) const;

  std::shared_ptr<const Transport> ep_;
  int num_experts_;
  std::int64_t receive_budget_;
};

}  // namespace konclave
