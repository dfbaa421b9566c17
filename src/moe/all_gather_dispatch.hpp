#pragma once

#include "moe/dispatcher.hpp"
#include "moe/local_assignments.hpp"

namespace konclave {

/// What all ranks of a group have, and what of it is for the experts of this one.
struct AllGatherRoute {
  /// Of each rank of the group.
  struct Sources {
    std::vector<std::int64_t> tokens, assignments;
  };
  Groups::Group group;
  Sources sources;
  LocalAssignments local;  ///< counts tokens and assignments over all sources
  bool overlaps = false;
};

/// All rows of all ranks are gathered; each rank picks those of its experts, and adds up what these
/// made of a token before the sum over ranks. One round: with overlap, what else there is to do is
/// done while rows are gathered.
/// Returned rows are y (T,H) itself, and returned values (A) are in the order of assignments.
class AllGatherDispatch final : public Dispatch {
 public:
  explicit AllGatherDispatch(AllGatherRoute route);

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
  AllGatherRoute route_;
};

}  // namespace konclave
