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

/// Whether values may do without memory of their own (see Parameter). Their gradient's is then
/// wider than they are.
bool may_share_memory(const ParameterSpec& spec, const AnyView& grad) {
  return spec.only_multiplied && !grad.empty() && grad.type() != spec.type;
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
      grad_(allocate(storage.gradients, accum_type(spec_.type), shard().extent)),
      keeps_values_(!may_share_memory(spec_, grad_)),
      holds_(keeps_values_ ? Holds::gradient : Holds::values) {
  value_ = keeps_values_ ? allocate(weights_, spec_.type, shard().extent)
                         : AnyView(spec_.type, grad_.data(), grad_.extents(), grad_.rank());
}

const AnyView& Parameter::value() const {
  require(has_value(), "a gradient is where the values of " + name() + " were");
  return value_;
}

const AnyView& Parameter::new_value() {
  if (!keeps_values_) holds_ = Holds::values;
  return value_;
}

AnyIn Parameter::value_in_any_form() const {
  return has_value() ? AnyIn(value_) : prepared(GemmKind::forward).packed;
}

void Parameter::initialise(const ExecSpace& exec, std::uint64_t seed) {
  const RandomStream stream(seed, spec_.name);
  const AnyView& value = new_value();
  const AnyView flat = value.flatten();
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
  shape.accumulate = holds_ == Holds::gradient;
  holds_ = Holds::gradient;
  return shape;
}

const AnyView& Parameter::grad_to_add_to(const ExecSpace& exec) const {
  if (holds_ != Holds::gradient) ops::fill_zero(exec, grad_);
  holds_ = Holds::gradient;
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

void Parameter::keep_values(const ExecSpace& exec) {
  if (keeps_values_) return;
  const AnyView own = allocate(weights_, spec_.type, shard().extent);
  ops::cast(exec, value(), own);
  value_ = own;
  keeps_values_ = true;
  holds_ = Holds::leftovers;
}

AnyView Parameter::memory_of(const WeightForm& form, const GemmShape& product) {
  for (const Packed& made : packed_) {
    if (made.form == form) return made.memory;
  }
  const AnyView memory = weights_->make(form.type, std::max(1, experts_), form.elements);
  packed_.push_back({form, memory, product});
  return memory;
}

PreparedWeight Parameter::make_form(Operations& operations, GemmKind kind) {
  const GemmShape product = gemm_shape(kind);
  const WeightForm form = operations.form(product, experts_);
  if (form.as_stored()) return {value_};
  const AnyIn stored(value_.type(), keeps_values_ ? value_.data() : nullptr, value_.extents(),
                     value_.rank());
  return {stored, memory_of(form, product), form.layout};
}

void Parameter::choose_forms(const ExecSpace& exec, Operations& operations, int experts) {
  experts_ = experts;
  std::vector<GemmKind> kinds = {GemmKind::forward};
  if (!grad_.empty()) kinds.push_back(GemmKind::data_gradient);
  for (const GemmKind kind : kinds) {
    if (operations.form(gemm_shape(kind), experts).as_stored()) keep_values(exec);
  }
  for (const GemmKind kind : kinds) {
    (kind == GemmKind::forward ? forward_ : data_gradient_) = make_form(operations, kind);
  }
  if (grad_.empty()) return;
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

void Parameter::prepare(const ExecSpace& exec, Operations& operations, int experts) {
  if (forward_.weight.rank() == 0) choose_forms(exec, operations, experts);
  pack(exec, operations);
}

void Parameter::pack(const ExecSpace& exec, Operations& operations) const {
  if (!is_packed()) return;
  const GemmShape shape = gemm_shape(GemmKind::forward);
  const std::int64_t rows = size() / shape.in;
  const AnyIn all = value().reshape(rows, shape.in);
  for (std::int64_t first = 0; first < rows; first += shape.out) {
    pack(exec, operations, first / shape.out, all.slice(first, shape.out), 0);
  }
}

void Parameter::pack(const ExecSpace& exec, Operations& operations, std::int64_t matrix,
                     const AnyIn& rows, std::int64_t first) const {
  for (const Packed& form : packed_) {
    operations.pack(exec, form.product, experts_, rows, first, form.memory.slice(matrix, 1));
  }
}

const PreparedWeight& Parameter::prepared(GemmKind kind) const {
  const PreparedWeight& wanted = kind == GemmKind::forward ? forward_ : data_gradient_;
  require(wanted.weight.rank() > 0, spec_.name + " is used before it is prepared");
  return wanted;
}

}  // namespace konclave
