#pragma once

#include "moe/dispatcher.hpp"
#include "moe/local_assignments.hpp"

namespace konclave {

/// All rows of all ranks are gathered; each rank picks those of its experts, and adds up what these
/// made of a token before the sum over ranks. One round.
/// Returned rows are y (T,H) itself, and returned values (A) are in the order of assignments.
class AllGatherDispatch final : public Dispatch {
 public:
  /// Of each rank of the group.
  struct Sources {
    std::vector<std::int64_t> tokens, assignments;
  };

  /// `local` counts tokens and assignments over all sources.
  AllGatherDispatch(Groups::Group group, Sources sources, const LocalAssignments& local);

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
  /// Memory for what all sources have of something like x.
  AnyView room_for_all(const Context& context, const AnyIn& x,
                       const std::vector<std::int64_t>& counts) const;

  Groups::Group group_;
  Sources sources_;
  LocalAssignments local_;
};

}  // namespace konclave
