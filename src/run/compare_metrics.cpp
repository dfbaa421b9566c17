#include "run/compare_metrics.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <string_view>
#include <utility>

namespace konclave {

namespace {

struct Field {
  const char* name;
  Figure figure;
  bool in_both;  ///< steps where one side lacks it do not count
};

std::vector<Field> fields_of(const Figures& figures) {
  return {{"loss", figures.loss, false},
          {"val_loss", figures.loss, true},
          {"grad_norm", figures.norm, false},
          {"aux_loss", figures.auxiliary, false},
          {"z_loss", figures.auxiliary, false},
          {"load_imbalance", figures.routing, false},
          {"dropped_fraction", figures.routing, false},
          {"lr", figures.schedule, false},
          {"tokens", figures.schedule, false},
          // Not overload_factor, which is that of the ranks of a run.
          {"layers.aux_loss", figures.auxiliary, true},
          {"layers.seq_aux_loss", figures.auxiliary, true},
          {"layers.global_aux_loss", figures.auxiliary, true},
          {"layers.z_loss", figures.auxiliary, true},
          {"layers.entropy", figures.auxiliary, true},
          {"layers.load_imbalance", figures.routing, true},
          {"layers.dropped_fraction", figures.routing, true}};
}

constexpr std::string_view kLayers = "layers";
constexpr std::string_view kOfLayers = "layers.";

/// NaN for what is not there: JSON writes a NaN as null.
double number_of(const nlohmann::json& object, std::string_view name) {
  const auto found = object.find(name);
  const bool number = found != object.end() && found->is_number();
  return number ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

/// Of a field of the line, one; of "layers.NAME" one for each layer.
std::vector<double> values_of(const nlohmann::json& line, std::string_view name) {
  if (!name.starts_with(kOfLayers)) return {number_of(line, name)};
  std::vector<double> values;
  for (const nlohmann::json& layer : line.at(kLayers)) {
    values.push_back(number_of(layer, name.substr(kOfLayers.size())));
  }
  return values;
}

bool has(const nlohmann::json& line, std::string_view name) {
  if (!name.starts_with(kOfLayers)) return line.contains(name);
  const auto layers = line.find(kLayers);
  return layers != line.end() && !layers->empty() &&
         layers->front().contains(name.substr(kOfLayers.size()));
}

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

bool counts(const Field& field, const nlohmann::json& a, const nlohmann::json& b) {
  const bool in_a = has(a, field.name), in_b = has(b, field.name);
  return field.in_both ? in_a && in_b : in_a || in_b;
}

/// Of layers, the one that differs most counts.
void add_step(MetricDifference& field, std::int64_t step, std::vector<double> a,
              std::vector<double> b) {
  const std::size_t count = std::max(a.size(), b.size());
  a.resize(count, std::numeric_limits<double>::quiet_NaN());
  b.resize(count, std::numeric_limits<double>::infinity());
  double relative = 0, apart = 0;
  bool equal = true;
  for (std::size_t at = 0; at < count; ++at) {
    relative = std::max(relative, relative_distance(a[at], b[at]));
    apart = std::max(apart, distance(a[at], b[at]));
    equal = equal && same_bits(a[at], b[at]);
  }
  field.steps += 1;
  field.mean += apart;
  if (relative > field.largest) {
    field.largest = relative;
    field.largest_step = step;
  }
  if (!equal && field.first_unequal == 0) field.first_unequal = step;
  if (field.figure.exceeded(relative, equal) && field.first_exceeded == 0) {
    field.first_exceeded = step;
  }
}

MetricDifference compare_field(const Field& field, const std::vector<std::int64_t>& steps,
                               const MetricLines& a, const MetricLines& b) {
  MetricDifference result{field.name, field.figure};
  for (const std::int64_t step : steps) {
    const nlohmann::json &in_a = a.at(step), &in_b = b.at(step);
    if (!counts(field, in_a, in_b)) continue;
    add_step(result, step, values_of(in_a, field.name), values_of(in_b, field.name));
  }
  if (result.steps > 0) result.mean /= static_cast<double>(result.steps);
  result.within = field.figure.kind == Figure::Kind::mean_absolute
                      ? result.mean <= field.figure.limit
                      : result.first_exceeded == 0;
  return result;
}

}  // namespace

MetricLines read_metrics(const std::filesystem::path& file) {
  std::ifstream in(file);
  require(in.is_open(), "cannot read " + file.string(), ExitCode::input);
  MetricLines lines;
  for (std::string text; std::getline(in, text);) {
    nlohmann::json line = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) continue;
    const auto step = line.find("step");
    if (step == line.end() || !step->is_number_integer()) continue;
    const auto number = step->get<std::int64_t>();
    lines[number] = std::move(line);
  }
  return lines;
}

bool MetricsComparison::within() const {
  return std::all_of(fields.begin(), fields.end(),
                     [](const MetricDifference& field) { return field.within; });
}

std::int64_t MetricsComparison::first_unequal() const {
  std::int64_t first = 0;
  for (const MetricDifference& field : fields) {
    const std::int64_t step = field.first_unequal;
    if (step != 0 && (first == 0 || step < first)) first = step;
  }
  return first;
}

MetricsComparison compare_metrics(const MetricLines& a, const MetricLines& b,
                                  const Figures& figures) {
  MetricsComparison result;
  for (const auto& [step, line] : a)
    (b.contains(step) ? result.steps : result.only_a).push_back(step);
  for (const auto& [step, line] : b) {
    if (!a.contains(step)) result.only_b.push_back(step);
  }
  for (const Field& field : fields_of(figures)) {
    MetricDifference difference = compare_field(field, result.steps, a, b);
    if (difference.steps > 0) result.fields.push_back(std::move(difference));
  }
  return result;
}

}  // namespace konclave
