#include "run/compare_json.hpp"

namespace konclave {

namespace {

nlohmann::json json_of(const Figure& figure) {
  const char* const kinds[] = {"reported", "exact", "relative", "mean_absolute"};
  return {{"kind", kinds[static_cast<int>(figure.kind)]}, {"limit", figure.limit}};
}

nlohmann::json json_of(const MetricDifference& field) {
  return {{"name", field.name},
          {"figure", json_of(field.figure)},
          {"steps", field.steps},
          {"largest_relative", field.largest},
          {"largest_step", field.largest_step},
          {"mean_absolute", field.mean},
          {"first_exceeded", field.first_exceeded},
          {"first_unequal", field.first_unequal},
          {"within", field.within}};
}

nlohmann::json json_of(const MetricsComparison& metrics) {
  nlohmann::json fields = nlohmann::json::array();
  for (const MetricDifference& field : metrics.fields) fields.push_back(json_of(field));
  return {{"within", metrics.within()},
          {"first_unequal", metrics.first_unequal()},
          {"steps", metrics.steps},
          {"only_in", nlohmann::json::array({metrics.only_a, metrics.only_b})},
          {"fields", fields}};
}

nlohmann::json json_of(const std::optional<TensorDifference>& tensor) {
  if (!tensor) return nullptr;
  nlohmann::json result = {{"name", tensor->name},
                           {"figure", json_of(tensor->figure)},
                           {"error", tensor->error},
                           {"at", tensor->at},
                           {"values", {tensor->a, tensor->b}}};
  if (tensor->expert) {
    result["expert"] = *tensor->expert;
    result["expert_error"] = tensor->expert_error;
  }
  return result;
}

nlohmann::json json_of(const WeightsComparison& weights) {
  nlohmann::json groups = nlohmann::json::array();
  for (const GroupDifference& group : weights.groups) {
    groups.push_back({{"name", group.name},
                      {"figure", json_of(group.figure)},
                      {"tensors", group.tensors},
                      {"equal", group.equal},
                      {"exceeded", group.exceeded},
                      {"largest", json_of(group.largest)}});
  }
  return {{"within", weights.within()},
          {"checkpoints", {weights.folder_a, weights.folder_b}},
          {"steps", {weights.step_a, weights.step_b}},
          {"only_in", nlohmann::json::array({weights.only_a, weights.only_b})},
          {"other_shape", weights.other_shape},
          {"first_unequal", json_of(weights.first_unequal)},
          {"first_exceeded", json_of(weights.first_exceeded)},
          {"groups", groups}};
}

}  // namespace

nlohmann::json comparison_json(const Comparison& comparison) {
  nlohmann::json decks = nlohmann::json::object();
  for (const DeckChange& change : comparison.decks) {
    decks[change.key] = {change.before, change.after};
  }
  nlohmann::json result = {
      {"within", comparison.within()},
      {"runs", {comparison.a, comparison.b}},
      {"compute", {name_of(comparison.compute_a), name_of(comparison.compute_b)}},
      {"decks", decks},
      {"figure_steps", kFigureSteps},
      {"beyond_figure_steps", comparison.late()},
      {"remarks", comparison.remarks},
      {"metrics", nullptr},
      {"weights", nullptr}};
  if (comparison.metrics) result["metrics"] = json_of(*comparison.metrics);
  if (comparison.weights) result["weights"] = json_of(*comparison.weights);
  return result;
}

}  // namespace konclave
