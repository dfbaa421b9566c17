#include "layers/parameter.hpp"

#include "base/fault.hpp"
#include "base/rng.hpp"
#include "tensor/host_copy.hpp"

#include <utility>

namespace konclave {

namespace {

AnyView allocate(Arena* arena, DType type, const std::vector<std::int64_t>& shape) {
  if (arena == nullptr) return {};
  switch (shape.size()) {
    case 1:
      return arena->make(type, shape[0]);
    case 2:
      return arena->make(type, shape[0], shape[1]);
    case 3:
      return arena->make(type, shape[0], shape[1], shape[2]);
    default:
      fail("a parameter has 1 to 3 axes");
  }
}

}  // namespace

Placement Placement::part(const std::vector<std::int64_t>& shape, std::size_t axis,
                          const TensorParallel& tp) {
  return {Shard::part(shape, axis, tp.rank(), tp.ranks())};
}

Placement Placement::outside(const std::vector<std::int64_t>& shape, const TensorParallel& tp) {
  return {Shard::whole(shape), tp.ranks() > 1, tp.shares_rows()};
}

Placement Placement::inside(const std::vector<std::int64_t>& shape, const TensorParallel& tp) {
  return {Shard::whole(shape), tp.ranks() > 1, tp.ranks() > 1};
}

Parameter::Parameter(ParameterSpec spec, const ParameterStorage& storage)
    : Parameter(spec, Placement{Shard::whole(spec.shape)}, storage) {}

Parameter::Parameter(ParameterSpec spec, Placement placement, const ParameterStorage& storage)
    : spec_(std::move(spec)),
      placement_(std::move(placement)),
      value_(allocate(storage.weights, spec_.type, shard().extent)),
      grad_(allocate(storage.gradients, accum_type(spec_.type), shard().extent)) {}

void Parameter::initialise(const ExecSpace& exec, std::uint64_t seed) {
  const RandomStream stream(seed, spec_.name);
  std::vector<double> values(static_cast<std::size_t>(size()), spec_.init_value);
  if (spec_.init_std > 0) {
    for (const ShardRun& run : shard_runs(spec_.shape, shard())) {
      for (std::int64_t i = 0; i < run.count; ++i) {
        values[static_cast<std::size_t>(run.in_shard + i)] =
            spec_.init_std * stream.normal(static_cast<std::uint64_t>(
                                 (fault("init.local_index") ? run.in_shard : run.in_whole) + i));
      }
    }
  }
  from_doubles(exec, values, value_);
}

GemmShape Parameter::gemm_shape(GemmKind kind) const {
  const std::size_t rank = shard().extent.size();
  require(rank >= 2, spec_.name + " is no matrix");
  GemmShape shape{kind,
                  static_cast<int>(shard().extent[rank - 2]),
                  static_cast<int>(shard().extent[rank - 1]),
                  spec_.type,
                  spec_.type,
                  false};
  if (kind == GemmKind::weight_gradient) {
    shape.result = accum_type(spec_.type);
    shape.accumulate = true;
  }
  return shape;
}

void Parameter::prepare(const ExecSpace& exec, Operations& operations, int experts) {
  forward_ = operations.prepare(exec, gemm_shape(GemmKind::forward), experts, value_);
  if (grad_.empty()) return;
  data_gradient_ = operations.prepare(exec, gemm_shape(GemmKind::data_gradient), experts, value_);
  // The choice for the third product belongs to the report at the start of a run as well.
  const GemmShape gradient = gemm_shape(GemmKind::weight_gradient);
  if (experts > 1) {
    operations.choose(GroupedGemmShape{experts, gradient});
  } else {
    operations.choose(gradient);
  }
}

const PreparedWeight& Parameter::prepared(GemmKind kind) const {
  const PreparedWeight& wanted = kind == GemmKind::forward ? forward_ : data_gradient_;
  require(wanted.weight.data() != nullptr, spec_.name + " is used before it is prepared");
  return wanted;
}

}  // namespace konclave
