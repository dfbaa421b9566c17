#include "train/grad_buckets.hpp"

#include "base/fault.hpp"
#include "parallel/collectives.hpp"

#include <algorithm>

namespace konclave {

namespace {

/// So many parameters at least make a bucket of small ones.
constexpr std::int64_t kSmallInBucket = 16;
/// Elements of a line of a cache.
constexpr std::int64_t kGrain = 16;

/// Appends parameters to buckets: alone, to new ones; with others, to the last one that takes their
/// kind, as far as they fit, and to new ones behind it.
class Filling {
 public:
  Filling(const Groups& groups, std::int64_t capacity) : groups_(groups), capacity_(capacity) {}

  void add_alone(Parameter& parameter, bool tied) {
    for (std::int64_t first = 0; first < parameter.size();) {
      first += append(new_bucket(alone_, parameter, tied), parameter, first);
    }
  }
  void add(Parameter& parameter) {
    for (std::int64_t first = 0; first < parameter.size();) {
      GradBucket* const begun = begun_bucket(parameter);
      GradBucket& bucket = begun != nullptr ? *begun : new_bucket(shared_, parameter, false);
      first += append(bucket, parameter, first);
    }
  }

  std::vector<GradBucket> take() {
    alone_.insert(alone_.end(), shared_.begin(), shared_.end());
    return std::move(alone_);
  }

 private:
  static GradBucket::Over over(const Parameter& parameter) {
    if (parameter.spec().routed) return GradBucket::Over::expert_dp;
    return parameter.placement().partial_over_tp ? GradBucket::Over::tp_dp_cp
                                                 : GradBucket::Over::dp_cp;
  }
  Groups::Group group(GradBucket::Over over) const {
    if (over == GradBucket::Over::expert_dp) return groups_.expert_dp;
    return over == GradBucket::Over::dp_cp || fault("grad_reduce.tp_missing") ? groups_.dp_cp
                                                                              : groups_.tp_dp_cp;
  }

  GradBucket& new_bucket(std::vector<GradBucket>& to, const Parameter& parameter, bool tied) const {
    to.push_back({over(parameter), group(over(parameter)), {}, 0, &to == &shared_, tied});
    return to.back();
  }
  GradBucket* begun_bucket(const Parameter& parameter) {
    const auto takes = [&](const GradBucket& bucket) {
      return bucket.over == over(parameter) && bucket.elements < capacity_ &&
             bucket.gradient_type() == parameter.grad().type() &&
             bucket.value_type() == parameter.spec().type;
    };
    const auto found = std::find_if(shared_.rbegin(), shared_.rend(), takes);
    return found != shared_.rend() ? &*found : nullptr;
  }
  /// How many elements from `first` on found room.
  std::int64_t append(GradBucket& bucket, Parameter& parameter, std::int64_t first) const {
    const std::int64_t count = std::min(capacity_ - bucket.elements, parameter.size() - first);
    bucket.pieces.push_back({&parameter, first, count});
    bucket.elements += count;
    return count;
  }

  const Groups& groups_;
  std::int64_t capacity_;
  std::vector<GradBucket> alone_, shared_;
};

}  // namespace

AnyView ParameterPiece::of(const AnyView& whole) const {
  return whole.flatten().slice(first, count);
}

std::vector<std::int64_t> GradBucket::shares() const {
  return equal_shares(elements, group->size(), kGrain);
}

std::vector<ParameterPiece> GradBucket::own() const {
  const std::vector<std::int64_t> counts = shares();
  std::int64_t first = 0;
  for (int rank = 0; rank < group->rank(); ++rank) first += counts[static_cast<std::size_t>(rank)];
  const std::int64_t last = first + counts[static_cast<std::size_t>(group->rank())];
  std::vector<ParameterPiece> mine;
  std::int64_t at = 0;
  for (const ParameterPiece& piece : pieces) {
    const std::int64_t from = std::max(first, at), to = std::min(last, at + piece.count);
    if (from < to) mine.push_back({piece.parameter, piece.first + from - at, to - from});
    at += piece.count;
  }
  return mine;
}

std::vector<Parameter*> backward_order(Transformer& model) {
  std::vector<Parameter*> parameters;
  model.visit_parameters([&](Parameter& parameter) { parameters.push_back(&parameter); });
  std::reverse(parameters.begin(), parameters.end());
  return parameters;
}

std::vector<GradBucket> make_grad_buckets(Transformer& model, const Groups& groups,
                                          std::int64_t bucket_size) {
  const Parameter* const tied = model.tied_copy();
  Filling filling(groups, bucket_size);
  for (Parameter* const parameter : backward_order(model)) {
    const bool is_tied = parameter == tied;
    if (is_tied || parameter->size() >= bucket_size / kSmallInBucket) {
      filling.add_alone(*parameter, is_tied);
    } else {
      filling.add(*parameter);
    }
  }
  return filling.take();
}

}  // namespace konclave
