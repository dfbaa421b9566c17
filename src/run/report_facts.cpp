#include "run/report_facts.hpp"

#include "base/text.hpp"
#include "deck/check_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>
#include <utility>
#include <vector>

namespace konclave {

namespace {

using nlohmann::json;

using Facts = std::vector<std::pair<std::string, std::string>>;

std::string text_of(const json& object, const char* key) {
  const json value = object.value(key, json());
  return value.is_string() ? value.get<std::string>() : "";
}

/// "1,234,567".
std::string grouped(std::int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t at = 0; at < digits.size(); ++at) {
    if (at > 0 && (digits.size() - at) % 3 == 0) text += ',';
    text += digits[at];
  }
  return text;
}

/// "12.3 ms" of what format_duration would round away.
std::string step_time(double seconds) {
  return seconds < 1 ? fmt::format("{:.3g} ms", 1e3 * seconds) : format_duration(seconds);
}

/// The median of the second half: the first steps are often slower.
double typical(const Curve& curve) {
  std::vector<double> late(curve.value.begin() + static_cast<std::ptrdiff_t>(curve.size() / 2),
                           curve.value.end());
  const auto middle = late.begin() + static_cast<std::ptrdiff_t>(late.size() / 2);
  std::nth_element(late.begin(), middle, late.end());
  return *middle;
}

Facts result_facts(const RunMetrics& metrics, const Deck& deck, const json& summary) {
  Facts facts = {
      {"steps", fmt::format("{} of {}", grouped(metrics.steps), grouped(deck.run.steps))},
      {"tokens", grouped(metrics.tokens)}};
  const auto last = [&](const char* name) { return metrics.curves.at(name).value.back(); };
  const auto has = [&](const char* name) { return metrics.curves.contains(name); };
  if (has("loss")) facts.emplace_back("loss", fmt::format("{:.4f}", last("loss")));
  if (has("val_loss")) {
    const double loss = last("val_loss");
    facts.emplace_back("validation loss", fmt::format("{:.4f}", loss));
    facts.emplace_back("perplexity", fmt::format("{:.2f}", std::exp(loss)));
    const json entropy = summary.value("unigram_entropy", json());
    if (entropy.is_number()) {
      facts.emplace_back("of unigram entropy", fmt::format("{:.2f}", loss / entropy.get<double>()));
    }
  }
  if (has("seconds")) {
    const std::vector<double>& seconds = metrics.curves.at("seconds").value;
    double sum = 0;
    for (const double step : seconds) sum += step;
    facts.emplace_back("time in steps", step_time(sum));
    facts.emplace_back("a step", step_time(typical(metrics.curves.at("seconds"))));
  }
  if (has("tokens_per_second")) {
    facts.emplace_back("tokens per second",
                       grouped(std::llround(typical(metrics.curves.at("tokens_per_second")))));
  }
  if (metrics.nan_steps > 0) {
    facts.emplace_back("steps without a number", fmt::format("{}", metrics.nan_steps));
  }
  return facts;
}

Facts model_facts(const ModelDefinition& definition) {
  const ModelConfig& model = definition.model;
  const MoeConfig& moe = definition.moe;
  const ParameterCount count = count_parameters(definition);
  Facts facts = {
      {"parameters", fmt::format("{:.2f} M", static_cast<double>(count.total) / 1e6)},
      {"for a token", fmt::format("{:.2f} M", static_cast<double>(count.active) / 1e6)},
      {"layers", fmt::format("{} ({} MoE)", model.num_layers, definition.num_moe_layers())},
      {"hidden size", fmt::format("{}", model.hidden_size)},
      {"heads", fmt::format("{}, {} for keys and values", model.num_heads, model.kv_heads())},
      {"sequence length", fmt::format("{}", model.sequence_length)},
      {"vocabulary", fmt::format("{}", model.vocab_size)},
      {"precision", std::string(name_of(definition.compute))}};
  if (definition.num_moe_layers() > 0) {
    facts.emplace_back("experts", fmt::format("{}, top-{}", moe.num_experts, moe.top_k));
    facts.emplace_back("balancing", join(moe.balancing, ", "));
  }
  return facts;
}

Facts training_facts(const Deck& deck) {
  const OptimizerConfig& optimizer = deck.optimizer;
  return {{"global batch", fmt::format("{} sequences", deck.batch.global_size)},
          {"micro-batch", fmt::format("{} sequences", deck.batch.micro_size)},
          {"learning rate",
           fmt::format("{:g} to {:g}, {}", optimizer.lr, optimizer.min_lr, optimizer.schedule)},
          {"warm-up", fmt::format("{} steps", optimizer.warmup_steps)},
          {"weight decay", fmt::format("{:g}", optimizer.weight_decay)},
          {"clipping", fmt::format("{:g}", optimizer.clip_norm)},
          {"seed", fmt::format("{}", deck.run.seed)}};
}

Facts mapping_facts(const Deck& deck, const json& provenance) {
  const ParallelConfig& parallel = deck.parallel;
  std::set<std::string> hosts;
  const json ranks = provenance.value("ranks", json::array());
  for (const json& rank : ranks) hosts.insert(text_of(rank, "host"));
  const std::vector<std::string> names(hosts.begin(), hosts.end());
  return {
      {"ranks", fmt::format("{}", ranks.size())},
      {"hosts", names.size() > 4 ? fmt::format("{}", names.size()) : join(names, ", ")},
      {"tp, cp, pp", fmt::format("{}, {}, {}", parallel.tp, parallel.cp, parallel.pp)},
      {"ep, etp", fmt::format("{}, {}", parallel.ep, parallel.etp)},
      {"dispatcher", deck.definition.num_moe_layers() > 0 ? deck.definition.moe.dispatcher : ""}};
}

Facts version_facts(const json& provenance) {
  return {
      {"Konclave", text_of(provenance, "version") + " (" + text_of(provenance, "revision") + ")"},
      {"build", text_of(provenance, "build")},
      {"Kokkos", text_of(provenance, "kokkos") + ", " + text_of(provenance, "execution_space")},
      {"MPI", text_of(provenance, "mpi")},
      {"HDF5", text_of(provenance, "hdf5")},
      {"started", text_of(provenance, "started")},
      {"job", text_of(provenance, "job")}};
}

json group(const char* name, const Facts& facts) {
  json rows = json::array();
  for (const auto& [key, value] : facts) {
    if (!value.empty()) rows.push_back(json::array({key, value}));
  }
  return json::array({name, rows});
}

}  // namespace

json report_facts(const RunMetrics& metrics, const Deck& deck, const json& summary,
                  const json& provenance) {
  return json::array({group("Result", result_facts(metrics, deck, summary)),
                      group("Model", model_facts(deck.definition)),
                      group("Training", training_facts(deck)),
                      group("Mapping", mapping_facts(deck, provenance)),
                      group("Versions", version_facts(provenance))});
}

}  // namespace konclave
