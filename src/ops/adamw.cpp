#include "ops/adamw.hpp"

#include "tensor/kokkos.hpp"

#include <cmath>

namespace konclave::ops {

namespace {

/// The rule with what is the same for all elements worked out in double: 1 - beta2 of a beta2 that
/// was rounded to float is off by up to 1e-5.
template <typename A> struct Rule {
  A beta1, beta2, share1, share2, eps, clip, keep, rate, correction;

  explicit Rule(const AdamW& rule)
      : beta1(static_cast<A>(rule.beta1)),
        beta2(static_cast<A>(rule.beta2)),
        share1(static_cast<A>(1 - rule.beta1)),
        share2(static_cast<A>(1 - rule.beta2)),
        eps(static_cast<A>(rule.eps)),
        clip(static_cast<A>(rule.clip)),
        keep(static_cast<A>(1 - rule.lr * rule.weight_decay)),
        rate(static_cast<A>(rule.lr / (1 - std::pow(rule.beta1, rule.step)))),
        correction(static_cast<A>(1 / std::sqrt(1 - std::pow(rule.beta2, rule.step)))) {}
};

template <typename X>
void adamw_kernel(const ExecSpace& exec, Rule<Accum<X>> rule, View1<const Accum<X>> g,
                  View1<Accum<X>> master, View1<Accum<X>> m, View1<Accum<X>> v, View1<X> value) {
  using A = Accum<X>;
  const A* gradient = g.data();
  A *weight = master.data(), *first = m.data(), *second = v.data();
  X* out = value.data();
  Kokkos::parallel_for(
      "konclave::ops::adamw", Range(exec, 0, static_cast<std::int64_t>(g.size())),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const A slope = rule.clip * gradient[i];
        const A mean = rule.beta1 * first[i] + rule.share1 * slope;
        const A square = rule.beta2 * second[i] + rule.share2 * slope * slope;
        const A scale = math::sqrt(square) * rule.correction + rule.eps;
        const A updated = rule.keep * weight[i] - rule.rate * mean / scale;
        first[i] = mean;
        second[i] = square;
        weight[i] = updated;
        out[i] = X(updated);
      });
}

/// The sum of x^2 over `size` elements. They are read as several streams: the prefetchers of a CPU
/// stop at the end of each page, and a single one would have the sum wait for memory there.
template <typename X> KOKKOS_INLINE_FUNCTION double sum_of_squares(const X* x, std::int64_t size) {
  constexpr int kStreams = 4, kLanes = 16;
  const std::int64_t length = size / (kStreams * kLanes) * kLanes;
  double lanes[kStreams][kLanes] = {};
  for (std::int64_t i = 0; i < length; i += kLanes) {
    for (int stream = 0; stream < kStreams; ++stream) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const double value = x[stream * length + i + lane];
        lanes[stream][lane] += value * value;
      }
    }
  }
  double sum = 0;
  for (std::int64_t i = kStreams * length; i < size; ++i) sum += static_cast<double>(x[i]) * x[i];
  for (const auto& stream : lanes) {
    for (const double lane : stream) sum += lane;
  }
  return sum;
}

template <typename X>
void squares_kernel(const ExecSpace& exec, View1<const X> x, View1<double> partial) {
  const auto size = static_cast<std::int64_t>(x.size());
  const X* values = x.data();
  Kokkos::parallel_for(
      "konclave::ops::sum_squares", Range(exec, 0, squares_blocks(size)),
      KOKKOS_LAMBDA(const std::int64_t block) {
        const std::int64_t first = block * kSquaresBlock, rest = size - first;
        partial(block) =
            sum_of_squares(values + first, rest < kSquaresBlock ? rest : kSquaresBlock);
      });
}

}  // namespace

void adamw(const ExecSpace& exec, const AdamW& rule, const AnyIn& g, const AnyView& master,
           const AnyView& m, const AnyView& v, const AnyView& value) {
  require(g.size() == master.size() && g.size() == m.size() && g.size() == v.size() &&
              g.size() == value.size(),
          "adamw: g, master, m, v and value differ in size");
  if (g.empty()) return;
  dispatch(value.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    adamw_kernel<X>(exec, Rule<A>(rule), g.flat<A>(), master.flat<A>(), m.flat<A>(), v.flat<A>(),
                    value.flat<X>());
  });
}

void sum_squares(const ExecSpace& exec, const AnyIn& x, const View1<double>& partial) {
  require(static_cast<std::int64_t>(partial.size()) == squares_blocks(x.size()),
          "sum_squares: want one partial sum for each block");
  if (x.empty()) return;
  dispatch_accum(x.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    squares_kernel<A>(exec, x.flat<A>(), partial);
  });
}

}  // namespace konclave::ops
