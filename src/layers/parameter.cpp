#include "layers/parameter.hpp"

#include "base/fault.hpp"
#include "base/rng.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

constexpr std::int64_t kValuesAtATime = 1 << 16;

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
      weights_(storage.weights),
      value_(allocate(storage.weights, spec_.type, shard().extent)),
      grad_(allocate(storage.gradients, accum_type(spec_.type), shard().extent)) {}

void Parameter::initialise(const ExecSpace& exec, std::uint64_t seed) {
  const RandomStream stream(seed, spec_.name);
  const AnyView flat(value_.type(), value_.data(), {size(), 1, 1}, 1);
  std::vector<double> values;
  std::int64_t written = 0;
  const auto write = [&] {
    const auto count = static_cast<std::int64_t>(values.size());
    from_doubles(exec, values, flat.slice(written, count));
    written += count;
    values.clear();
  };
  const auto value_of = [&](std::int64_t index) {
    if (spec_.init_std <= 0) return spec_.init_value;
    return spec_.init_std * stream.normal(static_cast<std::uint64_t>(index));
  };
  // In pieces: all values in double would be the most memory that a run ever needs for them.
  for (const ShardRun& run : shard_runs(spec_.shape, shard())) {
    const std::int64_t first = fault("init.local_index") ? run.in_shard : run.in_whole;
    for (std::int64_t i = 0; i < run.count; ++i) {
      values.push_back(value_of(first + i));
      if (static_cast<std::int64_t>(values.size()) == kValuesAtATime) write();
    }
  }
  write();
}

GemmShape Parameter::next_gradient_shape() const {
  GemmShape shape = gemm_shape(GemmKind::weight_gradient);
  shape.accumulate = !restarted_;
  restarted_ = false;
  return shape;
}

const AnyView& Parameter::grad_to_add_to(const ExecSpace& exec) const {
  if (restarted_) ops::fill_zero(exec, grad_);
  restarted_ = false;
  return grad_;
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

const Parameter::Packed& Parameter::packed(const WeightForm& form, std::int64_t matrices) {
  for (const Packed& made : packed_) {
    if (made.form == form) return made;
  }
  packed_.push_back({form, weights_->make(form.type, matrices, form.elements)});
  return packed_.back();
}

PreparedWeight Parameter::pack(const ExecSpace& exec, Operations& operations, GemmKind kind,
                               int experts) {
  const GemmShape shape = gemm_shape(kind);
  const WeightForm form = operations.form(shape, experts);
  if (form.as_stored()) return {value_};
  const AnyView memory = packed(form, std::max(1, experts)).memory;
  operations.pack(exec, shape, experts, value_, memory);
  return {value_, memory, form.layout};
}

void Parameter::prepare(const ExecSpace& exec, Operations& operations, int experts) {
  forward_ = pack(exec, operations, GemmKind::forward, experts);
  if (grad_.empty()) return;
  const WeightForm second = operations.form(gemm_shape(GemmKind::data_gradient), experts);
  const bool shared = !second.as_stored() && second.layout == forward_.layout;
  data_gradient_ = shared ? forward_ : pack(exec, operations, GemmKind::data_gradient, experts);
  // The choice for the third product belongs to the report at the start of a run as well.
  GemmShape gradient = gemm_shape(GemmKind::weight_gradient);
  for (const bool accumulate : {false, true}) {
    gradient.accumulate = accumulate;
    if (experts > 1) {
      operations.choose(GroupedGemmShape{experts, gradient});
    } else {
      operations.choose(gradient);
    }
  }
}

const PreparedWeight& Parameter::prepared(GemmKind kind) const {
  const PreparedWeight& wanted = kind == GemmKind::forward ? forward_ : data_gradient_;
  require(wanted.weight.data() != nullptr, spec_.name + " is used before it is prepared");
  return wanted;
}

}  // namespace konclave
