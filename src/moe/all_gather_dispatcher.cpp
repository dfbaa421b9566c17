#include "moe/all_gather_dispatcher.hpp"

#include "moe/expert_counts.hpp"
#include "ops/elementwise.hpp"

#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>

namespace konclave {

namespace {

using Counts = std::vector<std::int64_t>;

std::int64_t sum(const Counts& counts) { return std::reduce(counts.begin(), counts.end()); }

/// Whole numbers as a tensor to be moved: a transport looks at no more than the size of elements.
template <typename Int> auto as_tensor(const View1<Int>& view) {
  static_assert(sizeof(Int) == size_of(DType::fp32));
  using Tensor = BasicAnyView<std::is_const_v<Int>>;
  return Tensor(DType::fp32, view.data(), {static_cast<std::int64_t>(view.size()), 1, 1}, 1);
}

/// Offsets behind each token of this rank, whose assignments follow `before` of other ranks.
View1<const int> ends_of_tokens(const Context& context, const View1<const int>& token_offsets,
                                std::int64_t before) {
  const auto tokens = static_cast<std::int64_t>(token_offsets.size()) - 1;
  const auto ends = context.scratch.make1<int>(tokens);
  const int shift = static_cast<int>(before);
  Kokkos::parallel_for(
      "konclave::moe::ends_of_tokens", Range(context.exec, 0, tokens),
      KOKKOS_LAMBDA(const std::int64_t t) { ends(t) = shift + token_offsets(t + 1); });
  return ends;
}

/// What all sources chose, as if they were one.
struct Choices {
  View1<int> token_offsets, expert_ids;  ///< (T+1), (A)
};

/// Memory is scratch.
Choices gather_choices(const Context& context, const Transport& group,
                       const AllGatherRoute::Sources& sources, const RoutingPlan& routing) {
  const std::int64_t tokens = sum(sources.tokens);
  Choices all{context.scratch.make1<int>(tokens + 1),
              context.scratch.make1<int>(sum(sources.assignments))};
  const auto first = sources.assignments.begin();
  const View1<const int> ends =
      ends_of_tokens(context, routing.token_offsets, std::reduce(first, first + group.rank()));
  const AnyView offsets = as_tensor(all.token_offsets);
  ops::fill_zero(context.exec, offsets.slice(0, 1));
  Request of_ends = group.start_all_gather_rows(context.exec, as_tensor(ends),
                                                offsets.slice(1, tokens), sources.tokens);
  Request of_experts = group.start_all_gather_rows(context.exec, as_tensor(routing.expert_ids),
                                                   as_tensor(all.expert_ids), sources.assignments);
  of_ends.wait(context.exec);
  of_experts.wait(context.exec);
  return all;
}

}  // namespace

AllGatherDispatcher::AllGatherDispatcher(const MoeConfig& config, const Groups& groups)
    : etp_ep_(groups.etp_ep),
      ep_(groups.ep),
      num_experts_(config.num_experts),
      overlaps_(groups.parallel.overlap_ep) {}

/// Each rank sends its tokens and the number of assignments of each expert.
AllGatherDispatcher::Sizes AllGatherDispatcher::exchange_sizes(const Context& context,
                                                               const RoutingPlan& routing) const {
  Counts mine = expert_counts(context, routing);
  mine.insert(mine.begin(), routing.tokens());
  const Counts all = gather_counts(*etp_ep_, mine);
  Sizes sizes;
  for (auto source = all.begin(); source != all.end(); source += num_experts_ + 1) {
    const auto experts = source + 1;
    sizes.sources.tokens.push_back(*source);
    sizes.sources.assignments.push_back(std::reduce(experts, experts + num_experts_));
    sizes.rows += std::reduce(experts + first(), experts + first() + local_experts());
  }
  return sizes;
}

std::shared_ptr<const Dispatch> AllGatherDispatcher::plan(const Context& context,
                                                          const RoutingPlan& routing) const {
  Sizes sizes = exchange_sizes(context, routing);
  const std::int64_t assignments = sum(sizes.sources.assignments);
  require(assignments < std::numeric_limits<int>::max(),
          "the dispatcher \"allgather\" brings " + std::to_string(assignments) +
              " assignments to each rank; take moe.dispatcher = \"alltoall\"",
          ExitCode::memory);
  const ArenaScope scope(context.scratch);
  const Choices choices = gather_choices(context, *etp_ep_, sizes.sources, routing);
  const LocalAssignments local = pick_local(context, choices.token_offsets, choices.expert_ids,
                                            first(), local_experts(), sizes.rows);
  return std::make_shared<AllGatherDispatch>(
      AllGatherRoute{etp_ep_, std::move(sizes.sources), local, overlaps_});
}

}  // namespace konclave
