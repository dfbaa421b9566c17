#include "moe/router_noise.hpp"

#include "base/rng.hpp"
#include "moe/window_rows.hpp"

#include <cmath>
#include <numbers>

namespace konclave {

namespace {

/// Number of the token of row t among all of the run.
KOKKOS_INLINE_FUNCTION std::uint64_t token_number(const RoutingWindows& windows, int w, int t) {
  return static_cast<std::uint64_t>(windows.first_token + w * windows.tokens + windows.places(t));
}

/// RandomStream::normal for kernels.
KOKKOS_INLINE_FUNCTION double normal(const RandomStream& stream, std::uint64_t index) {
  const auto [u, v] = stream.uniform_pair(index);
  return math::sqrt(-2.0 * math::log(1.0 - u)) * math::cos(2.0 * std::numbers::pi * v);
}

template <typename X>
void jitter_kernel(const ExecSpace& exec, const RoutingWindows& windows, RandomStream stream,
                   double jitter, View2<const X> x, View2<X> y) {
  using A = Accum<X>;
  const auto hidden = static_cast<std::uint64_t>(x.extent(1));
  for_each_window_row(
      "konclave::moe::jitter", exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        const std::uint64_t first = token_number(windows, w, t) * hidden;
        for (std::uint64_t h = 0; h < hidden; ++h) {
          const A factor = static_cast<A>(1 + jitter * (2 * stream.uniform(first + h) - 1));
          y(t, h) = X(A(x(t, h)) * factor);
        }
      });
}

template <typename A>
void force_kernel(const ExecSpace& exec, const RoutingWindows& windows, RandomStream stream,
                  RandomStream of_experts, std::uint64_t first_of_step, double bias,
                  View2<A> logits) {
  const auto experts = static_cast<std::uint64_t>(logits.extent(1));
  for_each_window_row(
      "konclave::moe::forced_logits", exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        const std::uint64_t first = token_number(windows, w, t) * experts;
        for (std::uint64_t e = 0; e < experts; ++e) {
          double logit = normal(stream, first + e);
          if (bias > 0) logit += bias * normal(of_experts, first_of_step + e);
          logits(t, e) = static_cast<A>(logit);
        }
      });
}

}  // namespace

RouterNoise::RouterNoise(const std::string& name, const MoeConfig& config)
    : name_(name),
      jitter_(config.input_jitter),
      bias_(config.force_bias),
      forced_(config.force_load_balancing) {}

void RouterNoise::jitter(const ExecSpace& exec, const MoeStep& step, const AnyIn& x,
                         const AnyView& y) const {
  require(same_shape(x, y) && x.type() == y.type(), "RouterNoise::jitter: want x, y (T,H)");
  if (x.empty()) return;
  const RandomStream stream(step.seed, name_ + ".jitter");
  dispatch(x.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    jitter_kernel<X>(exec, step.windows, stream, jitter_, x.as2<X>(), y.as2<X>());
  });
}

void RouterNoise::force(const ExecSpace& exec, const MoeStep& step, const AnyView& logits) const {
  if (!forced_ || !step.training || logits.empty()) return;
  const RandomStream stream(step.seed, name_ + ".forced_logits");
  const RandomStream of_experts(step.seed, name_ + ".forced_bias");
  const std::uint64_t first_of_step = bias_ < 0 ? 0
                                                : static_cast<std::uint64_t>(step.number) *
                                                      static_cast<std::uint64_t>(logits.extent(1));
  const double bias = std::abs(bias_);
  dispatch_accum(logits.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    force_kernel<A>(exec, step.windows, stream, of_experts, first_of_step, bias, logits.as2<A>());
  });
}

}  // namespace konclave
