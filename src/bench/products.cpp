#include "bench/products.hpp"

#include "base/rng.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <numeric>

namespace konclave {

namespace {

/// Splits of rows that grouped products go round: more than rounds have calls, as a rule.
constexpr std::uint64_t kSplits = 256;

std::vector<std::int64_t> weight_shape(const ProductSize& size) {
  if (size.experts == 0) return {size.out, size.in};
  return {size.experts, size.out, size.in};
}

/// A step's first micro-batch overwrites the gradient.
GemmShape shape_of(const Parameter& weight, GemmKind kind) {
  GemmShape shape = weight.gemm_shape(kind);
  shape.accumulate = false;
  return shape;
}

template <typename X> void fill_kernel(const ExecSpace& exec, View1<X> values) {
  Kokkos::parallel_for(
      "konclave::bench::fill_pattern", Range(exec, 0, static_cast<std::int64_t>(values.size())),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const auto word = static_cast<std::uint32_t>(i) * 2654435761U;
        values(i) = X(static_cast<float>(word >> 24) / 128.0F - 0.998F);
      });
}

}  // namespace

void fill_pattern(const ExecSpace& exec, const AnyView& view) {
  dispatch(view.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    fill_kernel<X>(exec, view.flat<X>());
  });
}

std::vector<int> uneven_counts(int experts, std::int64_t rows, std::uint64_t call) {
  const RandomStream stream(call, "bench.uneven_counts");
  // An expert's share is 0.5 to 1.5 of the mean before the draw; rows then choose one by one.
  std::vector<double> reach;
  double sum = 0;
  for (int e = 0; e < experts; ++e) {
    sum += 0.5 + stream.uniform(static_cast<std::uint64_t>(e));
    reach.push_back(sum);
  }
  std::vector<int> counts(static_cast<std::size_t>(experts), 0);
  for (std::int64_t row = 0; row < rows; ++row) {
    const double drawn = sum * stream.uniform(static_cast<std::uint64_t>(experts + row));
    const auto found = std::upper_bound(reach.begin(), reach.end() - 1, drawn);
    ++counts[static_cast<std::size_t>(found - reach.begin())];
  }
  return counts;
}

Products::Products(const BenchSetup& setup, const BackendConfig& backends, const ProductSize& size)
    : exec_(setup.exec),
      size_(size),
      values_(account_, MemoryClass::weights, "konclave::bench::weights"),
      gradients_(account_, MemoryClass::gradients, "konclave::bench::gradients"),
      rows_(account_, MemoryClass::activations, "konclave::bench::rows"),
      operations_(setup.backends, backends, account_) {
  const DType type = setup.compute();
  x_ = rows_.make(type, size.rows, size.in);
  y_ = rows_.make(type, size.rows, size.out);
  dx_ = rows_.make(type, size.rows, size.in);
  for (const AnyView& view : {x_, y_, dx_}) fill_pattern(exec_, view);
  make_weights(type);
  if (size.experts > 0) make_offsets();
}

void Products::make_weights(DType type) {
  const std::int64_t bytes = std::int64_t{std::max(1, size_.experts)} * size_.out * size_.in *
                             static_cast<std::int64_t>(size_of(type));
  const std::int64_t count = std::max<std::int64_t>(1, (size_.weight_bytes + bytes - 1) / bytes);
  for (std::int64_t i = 0; i < count; ++i) {
    weights_.emplace_back(
        ParameterSpec{"bench." + std::to_string(i), weight_shape(size_), type, 1.0},
        ParameterStorage{&values_, &gradients_});
    fill_pattern(exec_, weights_.back().value());
    ops::fill_zero(exec_, weights_.back().grad());
    weights_.back().prepare(exec_, operations_, size_.experts);
  }
}

void Products::make_offsets() {
  for (std::uint64_t call = 0; call < kSplits; ++call) {
    const std::vector<int> counts = uneven_counts(size_.experts, size_.rows, call);
    std::vector<int> offsets(counts.size() + 1, 0);
    std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
    offsets_.emplace_back(upload(exec_, rows_, offsets));
  }
}

double Products::flops() const {
  return 2.0 * static_cast<double>(size_.rows) * size_.out * size_.in;
}

std::string Products::backend(GemmKind kind) {
  const GemmShape shape = shape_of(weights_.front(), kind);
  return std::string(size_.experts > 1
                         ? operations_.choose(GroupedGemmShape{size_.experts, shape}).backend
                         : operations_.choose(shape).backend);
}

void Products::run(GemmKind kind) {
  const Parameter& weight = weights_[calls_ % weights_.size()];
  if (size_.experts > 0) {
    run_grouped(kind, weight);
  } else {
    run_plain(kind, weight);
  }
  ++calls_;
}

void Products::run_plain(GemmKind kind, const Parameter& weight) {
  const GemmShape shape = shape_of(weight, kind);
  if (kind == GemmKind::weight_gradient) {
    operations_.gemm(exec_, shape, {y_, nullptr, x_, weight.grad(), {}});
    return;
  }
  const bool forward = kind == GemmKind::forward;
  operations_.gemm(exec_, shape,
                   {forward ? x_ : y_, &weight.prepared(kind), {}, forward ? y_ : dx_, {}});
}

void Products::run_grouped(GemmKind kind, const Parameter& weight) {
  const GroupedGemmShape shape{size_.experts, shape_of(weight, kind)};
  const View1<const int>& offsets = offsets_[calls_ % offsets_.size()];
  if (kind == GemmKind::weight_gradient) {
    operations_.grouped_gemm(exec_, shape, {offsets, y_, nullptr, x_, weight.grad(), {}});
    return;
  }
  const bool forward = kind == GemmKind::forward;
  operations_.grouped_gemm(
      exec_, shape,
      {offsets, forward ? x_ : y_, &weight.prepared(kind), {}, forward ? y_ : dx_, {}});
}

}  // namespace konclave
