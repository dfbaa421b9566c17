#include "train/grad_reducer.hpp"

#include "base/fault.hpp"
#include "ops/elementwise.hpp"
#include "parallel/collectives.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>

namespace konclave {

namespace {

constexpr int kTiedChannel = 2;  // of pp; the pipeline has others
/// So many gradients at least make a bucket of small ones: a message each would take longer than
/// copying them.
constexpr std::int64_t kSmallInBucket = 16;

AnyView flattened(const AnyView& view) {
  return {view.type(), view.data(), {view.size(), 1, 1}, 1};
}

/// Copies pieces into one buffer, one behind the other, or back from there.
enum class Direction { into_buffer, from_buffer };
void copy(const ExecSpace& exec, const std::vector<AnyView>& pieces, const AnyView& buffer,
          Direction direction) {
  std::int64_t first = 0;
  for (const AnyView& piece : pieces) {
    const AnyView part = buffer.slice(first, piece.size());
    if (direction == Direction::into_buffer) {
      ops::cast(exec, piece, part);
    } else {
      ops::cast(exec, part, piece);
    }
    first += piece.size();
  }
}

}  // namespace

GradReducer::GradReducer(Transformer& model, const Groups& groups, const std::string& grad_reduce,
                         std::int64_t bucket_elements)
    : groups_(groups), ordered_(grad_reduce == "ordered") {
  require(ordered_ || grad_reduce == "library", "no way to reduce gradients: " + grad_reduce);
  // The small ones first: large ones between them would cut their buckets short.
  for (const bool large : {false, true}) {
    model.visit_parameters([&](const Parameter& parameter) {
      if ((parameter.size() >= bucket_elements / kSmallInBucket) != large) return;
      std::vector<Bucket>& buckets = parameter.spec().routed                 ? routed_
                                     : parameter.placement().partial_over_tp ? replicated_
                                                                             : dense_;
      add(buckets, flattened(parameter.grad()), bucket_elements, /*alone=*/large);
    });
  }
  if (const Parameter* const tied = model.tied_copy()) tied_ = tied->grad();
}

void GradReducer::add(std::vector<Bucket>& buckets, const AnyView& gradient, std::int64_t capacity,
                      bool alone) {
  for (std::int64_t first = 0; first < gradient.size();) {
    const bool fits = !alone && !buckets.empty() && buckets.back().elements < capacity &&
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
  if (!fault("grad_reduce.dense_missing")) reduce(exec, scratch, *groups_.dp_cp, dense_);
  const Groups::Group& of_replicated =
      fault("grad_reduce.tp_missing") ? groups_.dp_cp : groups_.tp_dp_cp;
  reduce(exec, scratch, *of_replicated, replicated_);
  if (!fault("grad_reduce.experts_missing")) reduce(exec, scratch, *groups_.expert_dp, routed_);
  if (!tied_.empty() && !fault("grad_reduce.tied_missing")) reduce_tied(exec, scratch);
}

void GradReducer::reduce(const ExecSpace& exec, Arena& scratch, const Transport& group,
                         const std::vector<Bucket>& buckets) const {
  if (group.size() == 1) return;
  for (const Bucket& bucket : buckets) {
    const ArenaScope scope(scratch);
    const bool in_place = bucket.pieces.size() == 1;
    const AnyView buffer = in_place ? bucket.pieces.front()
                                    : scratch.make(bucket.pieces.front().type(), bucket.elements);
    if (!in_place) copy(exec, bucket.pieces, buffer, Direction::into_buffer);
    if (ordered_) {
      all_reduce_in_order(exec, scratch, group, buffer, buffer);
    } else {
      group.start_all_reduce(exec, buffer).wait(exec);
    }
    if (fault("grad_reduce.experts_divided") && &group == groups_.expert_dp.get()) {
      std::vector<double> values = to_doubles(exec, buffer);
      for (double& value : values) value /= static_cast<double>(group.size());
      from_doubles(exec, values, buffer);
    }
    if (!in_place) copy(exec, bucket.pieces, buffer, Direction::from_buffer);
  }
}

void GradReducer::reduce_tied(const ExecSpace& exec, Arena& scratch) const {
  const ArenaScope scope(scratch);
  const Transport& pp = *groups_.pp;
  const int other = pp.rank() == 0 ? pp.size() - 1 : 0;
  const AnyView received = scratch.make(tied_.type(), tied_.extent(0), tied_.extent(1));
  Request arriving = pp.start_receive(exec, received, other, kTiedChannel);
  Request leaving = pp.start_send(exec, tied_, other, kTiedChannel);
  arriving.wait(exec);
  leaving.wait(exec);
  ops::add(exec, tied_, received, tied_);
}

}  // namespace konclave
