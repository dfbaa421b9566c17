#pragma once

#include "moe/all_gather_dispatch.hpp"

namespace konclave {

/// moe.dispatcher = "allgather": every rank of etp x ep gets the rows of all, with their experts
/// and weights. Few large messages, at the price of rows that a rank has no use for.
class AllGatherDispatcher final : public Dispatcher {
 public:
  AllGatherDispatcher(const MoeConfig& config, const Groups& groups);

  std::shared_ptr<const Dispatch> plan(const Context& context,
                                       const RoutingPlan& routing) const override;

 private:
  struct Sizes {
    AllGatherRoute::Sources sources;
    std::int64_t rows = 0;  ///< of all sources, for the experts of this rank
  };
  Sizes exchange_sizes(const Context& context, const RoutingPlan& routing) const;

  int local_experts() const { return num_experts_ / ep_->size(); }
  int first() const { return ep_->rank() * local_experts(); }

  Groups::Group etp_ep_, ep_;
  int num_experts_;
  bool overlaps_;
};

}  // namespace konclave
