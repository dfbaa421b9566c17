#include "run/report_data.hpp"

#include "base/error.hpp"
#include "base/file.hpp"
#include "deck/deck.hpp"
#include "run/report_facts.hpp"
#include "run/report_routing.hpp"

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>

namespace konclave {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kMostPoints = 1000;

RunMetrics read_curves(const fs::path& file) {
  RunMetrics metrics;
  std::ifstream in(file);
  require(in.is_open(), "cannot read " + file.string(), ExitCode::input);
  for (std::string text; std::getline(in, text);) {
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    // The end of a killed run.
    if (!line.is_object() || !line.value("step", json()).is_number_integer()) continue;
    metrics.steps = line["step"].get<std::int64_t>();
    metrics.tokens = line.value("tokens", std::int64_t{0});
    for (const auto& [name, value] : line.items()) {
      if (name == "step" || name == "tokens" || !value.is_number()) continue;
      metrics.curves[name].add(metrics.steps, value.get<double>());
    }
    const bool whole =
        line.value("loss", json()).is_number() && line.value("grad_norm", json()).is_number();
    metrics.nan_steps += whole ? 0 : 1;
  }
  return metrics;
}

json read_object(const fs::path& file) {
  if (!fs::exists(file)) return json::object();
  json value = json::parse(read_text(file), nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : json::object();
}

json memory_of(const json& summary) {
  json rows = json::array();
  const json memory = summary.value("memory", json::object());
  const json classes = memory.value("classes", json::object());
  for (const auto& [name, bytes] : classes.items()) rows.push_back(json::array({name, bytes}));
  return rows;
}

json phases_of(const json& summary) {
  json rows = json::array();
  for (const json& phase : summary.value("phases", json::array())) {
    rows.push_back(json::array({phase.at("name"), phase.at("seconds")}));
  }
  return rows;
}

json routing_of(const fs::path& run, const Deck& deck, json& remarks) {
  const fs::path file = run / "routing.h5";
  if (deck.definition.num_moe_layers() == 0) return nullptr;
  if (!fs::exists(file)) {
    remarks.push_back("The load of the experts is not shown: there is no " + file.string() + ".");
    return nullptr;
  }
  try {
    return report_routing(file);
  } catch (const Error& error) {
    if (error.exit_code() != ExitCode::input) throw;
    remarks.push_back("The load of the experts is not shown: " + std::string(error.what()) + ".");
    return nullptr;
  }
}

}  // namespace

json report_data(const fs::path& run) {
  require(fs::is_directory(run), "there is no folder " + run.string(), ExitCode::input);
  const fs::path metrics_file = run / "metrics.jsonl", deck_file = run / "deck.toml";
  for (const fs::path& file : {metrics_file, deck_file}) {
    require(fs::is_regular_file(file),
            run.string() + " is no folder of a run: it has no " + file.filename().string(),
            ExitCode::input);
  }
  const Deck deck = read_deck(deck_file, {}, DeckUse::model);
  const RunMetrics metrics = read_curves(metrics_file);
  const json summary = read_object(run / "summary.json");
  const json provenance = read_object(run / "provenance.json");

  json remarks = json::array(), curves = json::object();
  for (const auto& [name, whole] : metrics.curves) {
    const Curve curve = thinned(whole, kMostPoints);
    curves[name] = {{"step", curve.step}, {"value", curve.value}};
  }
  if (metrics.steps == 0) remarks.push_back("No step is done yet.");
  json result = {{"name", deck.run.name},
                 {"steps", metrics.steps},
                 {"wanted_steps", deck.run.steps},
                 {"nan_steps", metrics.nan_steps},
                 {"facts", report_facts(metrics, deck, summary, provenance)},
                 {"deck", read_text(deck_file)},
                 {"curves", curves},
                 {"memory", memory_of(summary)},
                 {"phases", phases_of(summary)}};
  result["routing"] = routing_of(run, deck, remarks);
  result["remarks"] = remarks;
  return result;
}

}  // namespace konclave
