#include "train/grad_reducer.hpp"

#include "base/fault.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>

namespace konclave {

namespace {

AnyView flattened(const AnyView& view) {
  return {view.type(), view.data(), {view.size(), 1, 1}, 1};
}

/// buffer = sum of the buffers of all ranks, slice by slice in the order of ranks.
/// Shape  buffer (R,N) for R ranks: rank r adds up the slices r.
void reduce_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                     const AnyView& buffer) {
  const std::int64_t ranks = group.size(), slice = buffer.extent(1);
  const std::vector<std::int64_t> one_each(static_cast<std::size_t>(ranks), 1);
  const AnyView received = scratch.make(buffer.type(), ranks, slice);
  group.start_all_to_all(exec, buffer, one_each, received, one_each).wait(exec);
  const AnyView sum = scratch.make(buffer.type(), 1, slice);
  ops::fill_zero(exec, sum);
  const bool lose_last = fault("grad_reduce.last_rank_lost");
  ops::accumulate_rows(exec, received.slice(0, lose_last ? ranks - 1 : ranks), flattened(sum));
  group.start_all_gather(exec, sum, buffer).wait(exec);
}

}  // namespace

GradReducer::GradReducer(Transformer& model, const Groups& groups, const std::string& grad_reduce,
                         std::int64_t bucket_elements)
    : groups_(groups), ordered_(grad_reduce == "ordered") {
  require(ordered_ || grad_reduce == "library", "no way to reduce gradients: " + grad_reduce);
  model.visit_parameters([&](const Parameter& parameter) {
    add(parameter.spec().routed ? routed_ : dense_, flattened(parameter.grad()), bucket_elements);
  });
}

void GradReducer::add(std::vector<Bucket>& buckets, const AnyView& gradient,
                      std::int64_t capacity) {
  for (std::int64_t first = 0; first < gradient.size();) {
    const bool fits = !buckets.empty() && buckets.back().elements < capacity &&
                      buckets.back().pieces.front().type() == gradient.type();
    if (!fits) buckets.emplace_back();
    Bucket& bucket = buckets.back();
    const std::int64_t count = std::min(capacity - bucket.elements, gradient.size() - first);
    bucket.pieces.push_back(gradient.slice(first, count));
    bucket.elements += count;
    first += count;
  }
}

void GradReducer::reduce(const ExecSpace& exec, Arena& scratch) const {
  if (!fault("grad_reduce.dense_missing")) {
    for (const Bucket& bucket : dense_) reduce(exec, scratch, *groups_.dp, bucket);
  }
  if (!fault("grad_reduce.experts_missing")) {
    for (const Bucket& bucket : routed_) reduce(exec, scratch, *groups_.expert_dp, bucket);
  }
}

void GradReducer::reduce(const ExecSpace& exec, Arena& scratch, const Transport& group,
                         const Bucket& bucket) const {
  if (group.size() == 1) return;
  const ArenaScope scope(scratch);
  const std::int64_t ranks = group.size(), slice = (bucket.elements + ranks - 1) / ranks;
  const AnyView buffer = scratch.make(bucket.pieces.front().type(), ranks, slice);
  const AnyView flat = flattened(buffer);
  std::int64_t first = 0;
  for (const AnyView& piece : bucket.pieces) {
    ops::cast(exec, piece, flat.slice(first, piece.size()));
    first += piece.size();
  }
  ops::fill_zero(exec, flat.slice(first, flat.size() - first));
  if (ordered_) {
    reduce_in_order(exec, scratch, group, buffer);
  } else {
    group.start_all_reduce(exec, buffer).wait(exec);
  }
  if (fault("grad_reduce.experts_divided") && &group == groups_.expert_dp.get()) {
    std::vector<double> values = to_doubles(exec, flat);
    for (double& value : values) value /= static_cast<double>(ranks);
    from_doubles(exec, values, flat);
  }
  first = 0;
  for (const AnyView& piece : bucket.pieces) {
    ops::cast(exec, flat.slice(first, piece.size()), piece);
    first += piece.size();
  }
}

}  // namespace konclave
