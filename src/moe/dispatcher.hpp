#pragma once

#include "moe/config.hpp"
#include "moe/dispatch_way.hpp"
#include "moe/routing_plan.hpp"
#include "parallel/groups.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
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
  /// Something of this rank's tokens, and where it goes in each round.
  struct Brought {
    AnyIn from;               ///< (T,H), or (A)
    std::vector<AnyView> to;  ///< (R,H), or (R), of each round
  };
  /// How rounds go.
  struct Pace {
    bool kept = true;       ///< whether there is room for the rows of all rounds
    bool overlaps = false;  ///< whether rows travel beside other work (parallel.overlap_ep)
  };

  virtual ~Dispatch() = default;

  const std::vector<Round>& rounds() const { return rounds_; }
  bool kept() const { return pace_.kept; }
  bool overlaps() const { return pace_.overlaps; }

  /// Memory for each round: of scratch, for as many rounds at a time as `turns` says, or parts of
  /// `all` (rows of all rounds, H).
  std::vector<AnyView> by_turns(const Context& context, const AnyIn& like, std::size_t turns) const;
  std::vector<AnyView> parts(const AnyView& all) const;
  /// For how many rounds at a time what arrives needs memory.
  std::size_t turns() const { return kept() ? rounds_.size() : overlaps() ? 2 : 1; }

  /// The way of rows of x and, if there are two, weights of the assignments along with them.
  virtual std::unique_ptr<WayThere> way_there(const Context& context,
                                              std::vector<Brought> brought) const = 0;

  /// Memory for what comes back from all rounds before it is y: of scratch, or y itself. The same
  /// for values, one for each assignment.
  virtual AnyView returned_rows(const Context& context, const AnyView& y) const = 0;
  virtual AnyView returned_values(const Context& context, DType type) const = 0;

  /// The way back of rows and, if there are two, values, into such memory. Rows may be brought to
  /// their workplaces.
  virtual std::unique_ptr<WayBack> way_back(const Context& context,
                                            std::vector<AnyView> returned) const = 0;

  /// y[t] = residual[t] + sum over the assignments of t of their rows. Overwrites y; an empty
  /// residual stands for zero. Forward the rows come weighted; backward this is the gradient of
  /// bringing them.
  virtual void combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
                       const AnyView& y) const = 0;
  /// The same with a value for each row and without a residual. Gives the values in the order of
  /// assignments: memory of scratch, or `returned_values` itself.
  virtual AnyView combine_with_values(const Context& context, const AnyIn& returned,
                                      const AnyView& returned_values, const AnyView& y) const = 0;

 protected:
  Dispatch(std::vector<Round> rounds, Pace pace) : rounds_(std::move(rounds)), pace_(pace) {}

 private:
  std::vector<Round> rounds_;
  Pace pace_;
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
