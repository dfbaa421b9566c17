#include "train/grad_reducer.hpp"

#include "base/fault.hpp"
#include "ops/elementwise.hpp"
#include "parallel/collectives.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <memory>

namespace konclave {

namespace {

constexpr int kTiedChannel = 2;  // of pp; the pipeline has others

/// Gradients of pieces, one behind the other.
void gather_gradients(const ExecSpace& exec, const std::vector<ParameterPiece>& pieces,
                      const AnyView& to) {
  std::int64_t first = 0;
  for (const ParameterPiece& piece : pieces) {
    ops::cast(exec, piece.of(piece.parameter->grad()), to.slice(first, piece.count));
    first += piece.count;
  }
}

void scatter_gradients(const ExecSpace& exec, const AnyIn& from,
                       const std::vector<ParameterPiece>& pieces) {
  std::int64_t first = 0;
  for (const ParameterPiece& piece : pieces) {
    ops::cast(exec, from.slice(first, piece.count), piece.of(piece.parameter->grad()));
    first += piece.count;
  }
}

/// By parameter: how many buckets are of it and of those that come before it in the buckets' order,
/// which is that of backward, and of no others.
std::map<const Parameter*, std::size_t> complete_buckets(const std::vector<GradBucket>& buckets,
                                                         const std::vector<Parameter*>& order) {
  std::map<const Parameter*, std::size_t> place, complete;
  for (const Parameter* const parameter : order) place.emplace(parameter, place.size());
  std::size_t last = 0, count = 0;
  std::vector<std::size_t> needs;  // of each bucket and those before it, the last place
  for (const GradBucket& bucket : buckets) {
    for (const ParameterPiece& piece : bucket.pieces) {
      last = std::max(last, place.at(piece.parameter));
    }
    needs.push_back(last);
  }
  for (const Parameter* const parameter : order) {
    while (count < needs.size() && needs[count] <= place.at(parameter)) ++count;
    complete.emplace(parameter, count);
  }
  return complete;
}

/// Of a seeded fault.
void divide(const ExecSpace& exec, const AnyView& gradients, int by) {
  std::vector<double> values = to_doubles(exec, gradients);
  for (double& value : values) value /= by;
  from_doubles(exec, values, gradients);
}

bool left_out(const GradBucket& bucket) {
  if (bucket.over == GradBucket::Over::dp_cp) return fault("grad_reduce.dense_missing");
  return bucket.over == GradBucket::Over::expert_dp && fault("grad_reduce.experts_missing");
}

}  // namespace

GradReducer::GradReducer(Transformer& model, const std::vector<GradBucket>& buckets,
                         const Groups& groups, const ParallelConfig& parallel,
                         MemoryAccount& account)
    : buckets_(buckets),
      groups_(groups),
      ordered_(parallel.grad_reduce == "ordered"),
      to_owners_(parallel.distributed_optimizer),
      narrow_(parallel.grad_wire == "bf16"),
      overlaps_(parallel.overlap_grad_reduce),
      queue_(account, "konclave::gradients_under_way", overlaps_ ? kBucketsUnderWay : 1) {
  require(ordered_ || parallel.grad_reduce == "library",
          "no way to reduce gradients: " + parallel.grad_reduce);
  require(narrow_ || parallel.grad_wire == "fp32", "no type to send: " + parallel.grad_wire);
  require(ordered_ || !(narrow_ || to_owners_), "the library sums fp32, and for all ranks");
  if (overlaps_) complete_ = complete_buckets(buckets, backward_order(model));
}

void GradReducer::start_behind(const ExecSpace& exec, const Parameter& first) {
  if (overlaps_) start_until(exec, complete_.at(&first));
}

void GradReducer::poll(const ExecSpace& exec) { queue_.poll(exec); }

void GradReducer::start_until(const ExecSpace& exec, std::size_t bucket) {
  for (; started_ < bucket; ++started_) {
    const GradBucket& next = buckets_[started_];
    for (const ParameterPiece& piece : next.pieces) piece.parameter->grad_to_add_to(exec);
    if (next.group->size() > 1 && !left_out(next)) queue_.add(sum_of(exec, next));
  }
  if (overlaps_) queue_.poll(exec);
}

void GradReducer::reduce(const ExecSpace& exec, Arena& scratch) {
  start_until(exec, buckets_.size());
  queue_.finish(exec);
  started_ = 0;
  if (ordered_ && !to_owners_) {
    for (const GradBucket& bucket : buckets_) {
      if (bucket.group->size() > 1 && !left_out(bucket)) queue_.add(spread_of(exec, bucket));
    }
    queue_.finish(exec);
  }
  for (const GradBucket& bucket : buckets_) {
    if (bucket.tied && !fault("grad_reduce.tied_missing")) reduce_tied(exec, scratch, bucket);
  }
}

ExchangeQueue::Exchange GradReducer::sum_of(const ExecSpace& exec, const GradBucket& bucket) const {
  struct Buffers {
    AnyView sent, received;
    Arena* memory = nullptr;
  };
  const auto buffers = std::make_shared<Buffers>();
  const auto start = [this, exec, &bucket, buffers](Arena& memory) {
    const DType type = bucket.gradient_type(), wire = narrow_ ? DType::bf16 : type;
    const ParameterPiece& first = bucket.pieces.front();
    const bool as_it_is = bucket.in_place() && wire == type;
    const AnyView sent =
        as_it_is ? first.of(first.parameter->grad()) : memory.make(wire, bucket.elements);
    if (!as_it_is) gather_gradients(exec, bucket.pieces, sent);
    *buffers = {sent, {}, &memory};
    if (!ordered_) return bucket.group->start_all_reduce(exec, sent);
    const std::vector<std::int64_t> shares = bucket.shares();
    const std::int64_t ranks = bucket.group->size(),
                       mine = shares[static_cast<std::size_t>(bucket.group->rank())];
    buffers->received = memory.make(wire, ranks * mine, 1);
    return bucket.group->start_all_to_all(
        exec, sent.reshape(sent.size(), 1), shares, buffers->received,
        std::vector<std::int64_t>(static_cast<std::size_t>(ranks), mine));
  };
  const auto finish = [this, exec, &bucket, buffers] {
    if (!ordered_) {
      const ParameterPiece& first = bucket.pieces.front();
      const bool elsewhere = buffers->sent.data() != first.of(first.parameter->grad()).data();
      if (elsewhere) scatter_gradients(exec, buffers->sent, bucket.pieces);
      return;
    }
    const std::int64_t ranks = bucket.group->size(), mine = buffers->received.size() / ranks;
    const AnyView sum = buffers->memory->make(bucket.gradient_type(), mine);
    sum_in_order(exec, *buffers->memory, buffers->received.reshape(ranks, mine), sum);
    if (bucket.over == GradBucket::Over::expert_dp && fault("grad_reduce.experts_divided")) {
      divide(exec, sum, bucket.group->size());
    }
    scatter_gradients(exec, sum, bucket.own());
  };
  return {start, finish};
}

ExchangeQueue::Exchange GradReducer::spread_of(const ExecSpace& exec,
                                               const GradBucket& bucket) const {
  const auto all = std::make_shared<AnyView>();
  const auto start = [exec, &bucket, all](Arena& memory) {
    const DType type = bucket.gradient_type();
    const std::vector<std::int64_t> shares = bucket.shares();
    const AnyView mine =
        memory.make(type, shares[static_cast<std::size_t>(bucket.group->rank())], 1);
    gather_gradients(exec, bucket.own(), mine.flatten());
    const ParameterPiece& first = bucket.pieces.front();
    *all =
        bucket.in_place() ? first.of(first.parameter->grad()) : memory.make(type, bucket.elements);
    return bucket.group->start_all_gather_rows(exec, mine, all->reshape(all->size(), 1), shares);
  };
  const auto finish = [exec, &bucket, all] {
    if (!bucket.in_place()) scatter_gradients(exec, *all, bucket.pieces);
  };
  return {start, finish};
}

void GradReducer::reduce_tied(const ExecSpace& exec, Arena& scratch,
                              const GradBucket& bucket) const {
  const ArenaScope scope(scratch);
  const Transport& pp = *groups_.pp;
  const int other = pp.rank() == 0 ? pp.size() - 1 : 0;
  for (const ParameterPiece& piece : to_owners_ ? bucket.own() : bucket.pieces) {
    const AnyView mine = piece.of(piece.parameter->grad());
    const AnyView received = scratch.make(mine.type(), piece.count);
    Request arriving = pp.start_receive(exec, received, other, kTiedChannel);
    Request leaving = pp.start_send(exec, mine, other, kTiedChannel);
    arriving.wait(exec);
    leaving.wait(exec);
    ops::add(exec, mine, received, mine);
  }
}

}  // namespace konclave
