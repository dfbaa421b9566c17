#include "moe/expert_choices.hpp"

#include "base/error.hpp"
#include "moe/window_rows.hpp"

namespace konclave {

namespace {

/// f(t, row of the choices) for the rows t of this rank.
template <typename F>
void for_each_choice(const char* label, const ExecSpace& exec, const MoeStep& step, int layer,
                     const F& f) {
  const RoutingWindows windows = step.windows;
  const std::int64_t first = windows.first_token - step.choices.first_token;
  const std::int64_t tokens = windows.count * windows.tokens, layers = step.choices.layers;
  require(
      layer < layers && first >= 0 &&
          (first + tokens) * layers <= static_cast<std::int64_t>(step.choices.experts.extent(0)),
      "an MoE layer or tokens that the choices of a step have no place for");
  for_each_window_row(
      label, exec, windows, KOKKOS_LAMBDA(const int w, const int t) {
        f(t, (first + w * windows.tokens + windows.places(t)) * layers + layer);
      });
}

}  // namespace

void record_choice(const ExecSpace& exec, const MoeStep& step, int layer, In2<int> chosen) {
  if (step.choices.use != ExpertChoices::Use::record) return;
  const View2<int> kept = step.choices.experts;
  const int top_k = chosen.extent_int(1);
  require(kept.extent_int(1) == top_k, "record_choice: want experts (T,K)");
  for_each_choice(
      "konclave::moe::record_choice", exec, step, layer,
      KOKKOS_LAMBDA(const int t, const std::int64_t row) {
        for (int k = 0; k < top_k; ++k) kept(row, k) = chosen(t, k);
      });
}

void replay_choice(const ExecSpace& exec, const MoeStep& step, int layer, View2<int> chosen) {
  const View2<const int> kept = step.choices.experts;
  const int top_k = chosen.extent_int(1);
  require(step.choices.use == ExpertChoices::Use::replay && kept.extent_int(1) == top_k,
          "replay_choice: want given experts (T,K)");
  for_each_choice(
      "konclave::moe::replay_choice", exec, step, layer,
      KOKKOS_LAMBDA(const int t, const std::int64_t row) {
        for (int k = 0; k < top_k; ++k) chosen(t, k) = kept(row, k);
      });
}

}  // namespace konclave
