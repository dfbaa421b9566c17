#pragma once

#include "moe/config.hpp"
#include "moe/routing_plan.hpp"
#include "parallel/groups.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace konclave {

/// The way of one micro-batch's rows to the experts of the ranks that hold them together (etp x
/// ep), and back, in rounds. Every one of these ranks calls the same functions in the same order.
/// With etp > 1 an expert's rows come to all ranks that have a part of it, and what these make of a
/// row are parts of a sum, which is taken on the way back. Shapes  x, y (T,H)   weights, values of
/// assignments (A)   rows (R,H) and values (R) of a round in local order (expert, source rank,
/// token).    H and the types are free.
class Dispatch {
 public:
  /// What the experts of this rank get at once.
  struct Round {
    std::int64_t rows = 0;
    View1<const int> expert_offsets;  ///< (L+1), rows of each local expert
  };

  virtual ~Dispatch() = default;

  const std::vector<Round>& rounds() const { return rounds_; }

  /// rows = those of x that the round brings to the local experts.
  virtual void bring(const Context& context, std::size_t round, const AnyIn& x,
                     const AnyView& rows) const = 0;
  /// The same with the weights of the assignments: the weight of each row goes along.
  virtual void bring(const Context& context, std::size_t round, const AnyIn& x, const AnyView& rows,
                     const AnyIn& weights, const AnyView& row_weights) const = 0;

  /// Memory for what comes back from all rounds before it is y: of scratch, or y itself. The same
  /// for values, one for each assignment.
  virtual AnyView returned_rows(const Context& context, const AnyView& y) const = 0;
  virtual AnyView returned_values(const Context& context, DType type) const = 0;

  /// Where the experts work on a round: (R,H) or (R), of the type and width of `returned`. What is
  /// there in the end, give_back brings to `returned`; on one rank it is the same memory.
  virtual AnyView workplace(const Context& context, std::size_t round,
                            const AnyView& returned) const = 0;
  /// What the experts made of a round's rows goes back: fills the round's part of `returned`.
  virtual void give_back(const Context& context, std::size_t round, const AnyIn& rows,
                         const AnyView& returned) const = 0;
  /// The same with a value for each row.
  virtual void give_back(const Context& context, std::size_t round, const AnyIn& rows,
                         const AnyView& returned, const AnyIn& values,
                         const AnyView& returned_values) const = 0;

  /// y[t] = residual[t] + sum over the assignments of t of their rows. Overwrites y; an empty
  /// residual stands for zero. Forward the rows come weighted; backward this is the gradient of
  /// `bring`.
  virtual void combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
                       const AnyView& y) const = 0;
  /// The same with a value for each row and without a residual. Gives the values in the order of
  /// assignments: memory of scratch, or `returned_values` itself.
  virtual AnyView combine_with_values(const Context& context, const AnyIn& returned,
                                      const AnyView& returned_values, const AnyView& y) const = 0;

 protected:
  explicit Dispatch(std::vector<Round> rounds) : rounds_(std::move(rounds)) {}

 private:
  std::vector<Round> rounds_;
};

/// Plans dispatches over a layer's ranks.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;

  /// Exchanges what every rank has to know to lay down the way. Waits for `exec`, once. Memory of
  /// the plan is an activation.
  virtual std::shared_ptr<const Dispatch> plan(const Context& context,
                                               const RoutingPlan& routing) const = 0;
};

/// The one of moe.dispatcher. On one rank both are the same permutation.
std::shared_ptr<const Dispatcher> make_dispatcher(const MoeConfig& config, const Groups& groups);

}  // namespace konclave
