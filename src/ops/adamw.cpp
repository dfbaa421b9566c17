#include "ops/adamw.hpp"

#include "tensor/kokkos.hpp"

#include <bit>
#include <cmath>
#include <type_traits>

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

/// Moments that are kept as they are worked out.
template <typename A> struct Exact {
  using Kept = A;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t, A mean, A square, A& m, A& v) const {
    m = mean;
    v = square;
  }
};

/// `value` rounded to bf16, up when `chance`, 16 random bits, is below what would be cut off.
KOKKOS_INLINE_FUNCTION Bf16 round_by_chance(float value, std::uint32_t chance) {
  Bf16 result;
  result.bits =
      static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(value) + (chance & 0xffffU)) >> 16);
  return result;
}

/// One division for each element is dear: without it where all elements are one run.
template <bool one_run> struct ByChance {
  using Kept = Bf16;
  ChanceRounding rounding;

  KOKKOS_INLINE_FUNCTION void operator()(std::int64_t i, float mean, float square, Bf16& m,
                                         Bf16& v) const {
    const std::int64_t at = i + rounding.skipped;
    const std::int64_t number =
        rounding.first + (one_run ? at : at / rounding.run * rounding.stride + at % rounding.run);
    // SplitMix64's finaliser: bits that have nothing to do with the values are all that is wanted.
    std::uint64_t bits = rounding.key + static_cast<std::uint64_t>(number) * 0x9E3779B97F4A7C15U;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9U;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBU;
    bits ^= bits >> 31;
    m = round_by_chance(mean, static_cast<std::uint32_t>(bits));
    v = round_by_chance(square, static_cast<std::uint32_t>(bits >> 16));
  }
};

template <typename X, typename Keep>
void adamw_kernel(const ExecSpace& exec, Rule<Accum<X>> rule, View1<const Accum<X>> g,
                  View1<Accum<X>> master, View1<typename Keep::Kept> m,
                  View1<typename Keep::Kept> v, View1<X> value, Keep keep) {
  using A = Accum<X>;
  using Kept = typename Keep::Kept;
  const A* gradient = g.data();
  A* weight = master.data();
  Kept *first = m.data(), *second = v.data();
  X* out = value.data();
  Kokkos::parallel_for(
      "konclave::ops::adamw", Range(exec, 0, static_cast<std::int64_t>(g.size())),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const A slope = rule.clip * gradient[i];
        const A mean = rule.beta1 * A(first[i]) + rule.share1 * slope;
        const A square = rule.beta2 * A(second[i]) + rule.share2 * slope * slope;
        const A scale = math::sqrt(square) * rule.correction + rule.eps;
        const A updated = rule.keep * weight[i] - rule.rate * mean / scale;
        keep(i, mean, square, first[i], second[i]);
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
           const AnyView& m, const AnyView& v, const AnyView& value,
           const ChanceRounding& rounding) {
  require(g.size() == master.size() && g.size() == m.size() && g.size() == v.size() &&
              g.size() == value.size(),
          "adamw: g, master, m, v and value differ in size");
  if (g.empty()) return;
  dispatch(value.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    using A = Accum<X>;
    const auto run = [&](auto keep) {
      using Kept = typename decltype(keep)::Kept;
      adamw_kernel<X>(exec, Rule<A>(rule), g.flat<A>(), master.flat<A>(), m.flat<Kept>(),
                      v.flat<Kept>(), value.flat<X>(), keep);
    };
    if constexpr (std::is_same_v<A, float>) {
      if (m.type() == DType::bf16) {
        const bool one_run = rounding.skipped + g.size() <= rounding.run;
        one_run ? run(ByChance<true>{rounding}) : run(ByChance<false>{rounding});
        return;
      }
    }
    run(Exact<A>{});
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
