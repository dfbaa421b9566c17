#include "run/compare_report.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave {

namespace {

/// Names shown of a long list; JSON has all.
constexpr std::size_t kShown = 4;

std::string step_text(std::int64_t step) { return step == 0 ? "-" : std::to_string(step); }

/// "1 to 20, 25".
std::string steps_text(const std::vector<std::int64_t>& steps) {
  std::vector<std::string> runs;
  for (std::size_t i = 0; i < steps.size();) {
    std::size_t last = i;
    while (last + 1 < steps.size() && steps[last + 1] == steps[last] + 1) ++last;
    runs.push_back(last == i ? std::to_string(steps[i])
                             : fmt::format("{} to {}", steps[i], steps[last]));
    i = last + 1;
  }
  return join(runs, ", ");
}

std::string first_names(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kShown);
  std::vector<std::string> first(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown));
  if (shown < names.size()) first.push_back(fmt::format("and {} more", names.size() - shown));
  return join(first, ", ");
}

std::string describe(const MetricDifference& field) {
  std::string text =
      fmt::format("{:<17} {:>12.3g} {:>8} {:>10} {:>13}  {}", field.name, field.largest,
                  step_text(field.largest_step), step_text(field.first_exceeded),
                  step_text(field.first_unequal), field.figure.verdict(field.within));
  if (field.figure.kind == Figure::Kind::mean_absolute) {
    text += fmt::format(" (it is {:.3g})", field.mean);
  }
  return text + "\n";
}

std::string describe(const MetricsComparison& metrics, const Comparison& whole) {
  std::string text = fmt::format("\nmetrics of steps {}", steps_text(metrics.steps));
  const std::int64_t first = metrics.first_unequal();
  text += first == 0 ? ", all equal\n" : fmt::format("; the first that differs is {}\n", first);
  const auto only = [&](const std::string& run, const std::vector<std::int64_t>& steps) {
    if (!steps.empty()) text += fmt::format("only {} has steps {}\n", run, steps_text(steps));
  };
  only(whole.a, metrics.only_a);
  only(whole.b, metrics.only_b);
  text += fmt::format("{:<17} {:>12} {:>8} {:>10} {:>13}  {}\n", "metric", "largest rel.",
                      "at step", "beyond at", "not equal at", "verdict");
  for (const MetricDifference& field : metrics.fields) text += describe(field);
  return text;
}

std::string describe(const TensorDifference& tensor) {
  std::string text = fmt::format("{}, error {:.3g}", tensor.name, tensor.error);
  if (!tensor.at.empty()) {
    std::vector<std::string> indices;
    for (const std::int64_t index : tensor.at) indices.push_back(std::to_string(index));
    text += fmt::format(", furthest at ({}): {:.9g} and {:.9g}", join(indices, ", "), tensor.a,
                        tensor.b);
  }
  if (tensor.expert) {
    text += fmt::format(", expert {} most ({:.3g})", *tensor.expert, tensor.expert_error);
  }
  return text;
}

std::string describe(const GroupDifference& group) {
  std::string text = fmt::format("{:<21} {:>7} {:>7} {:>13.3g}  {}", group.name, group.tensors,
                                 group.equal, group.largest ? group.largest->error : 0.0,
                                 group.figure.verdict(group.exceeded == 0));
  if (group.exceeded > 0) text += fmt::format(" ({} tensors)", group.exceeded);
  text += "\n";
  if (group.largest) text += "  largest: " + describe(*group.largest) + "\n";
  return text;
}

std::string describe(const WeightsComparison& weights, const Comparison& whole) {
  std::string text = "\nweights of step " + std::to_string(weights.step_a);
  if (weights.step_a != weights.step_b) text += " and of step " + std::to_string(weights.step_b);
  const bool same_tensors =
      weights.only_a.empty() && weights.only_b.empty() && weights.other_shape.empty();
  if (weights.first_unequal) {
    text += "; the first tensor that differs is " + weights.first_unequal->name + "\n";
  } else {
    text += same_tensors ? ", all equal\n" : "; those that can be compared are equal\n";
  }
  const auto only = [&](const std::string& run, const std::vector<std::string>& names) {
    if (names.empty()) return;
    text += fmt::format("only {} has {} tensors: {}\n", run, names.size(), first_names(names));
  };
  only(whole.a, weights.only_a);
  only(whole.b, weights.only_b);
  if (!weights.other_shape.empty()) {
    text += "of another shape: " + first_names(weights.other_shape) + "\n";
  }
  text += fmt::format("{:<21} {:>7} {:>7} {:>13}  {}\n", "group", "tensors", "equal",
                      "largest error", "verdict");
  for (const GroupDifference& group : weights.groups) text += describe(group);
  if (weights.first_exceeded) {
    text += "first tensor beyond its figure: " + describe(*weights.first_exceeded) + "\n";
  }
  return text;
}

}  // namespace

std::string describe_comparison(const Comparison& comparison) {
  std::string text =
      fmt::format("a: {} ({})\nb: {} ({})\n", comparison.a, name_of(comparison.compute_a),
                  comparison.b, name_of(comparison.compute_b));
  for (const DeckChange& change : comparison.decks) {
    text += fmt::format("deck: {} is {} and {}\n", change.key, change.before, change.after);
  }
  for (const std::string& remark : comparison.remarks) text += remark + "\n";
  if (comparison.metrics) text += describe(*comparison.metrics, comparison);
  if (comparison.weights) text += describe(*comparison.weights, comparison);
  text += comparison.within() ? "\nwithin the figures" : "\nthe runs differ";
  if (comparison.late()) text += fmt::format("; the figures are for {} steps", kFigureSteps);
  return text + "\n";
}

}  // namespace konclave
