#include "run/report.hpp"

#include "base/text.hpp"
#include "deck/check_report.hpp"
#include "model/flops.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

namespace konclave {

namespace {

/// Of the bytes of a group; nothing when none has flown.
std::optional<double> share_under_compute(const RunSummary& summary, const std::string& group) {
  const auto found = std::find(kGroupNames.begin(), kGroupNames.end(), group);
  const auto index = static_cast<std::size_t>(found - kGroupNames.begin());
  if (summary.flown[index] == 0) return {};
  return static_cast<double>(summary.under_compute[index]) /
         static_cast<double>(summary.flown[index]);
}

double share_of_time(const RunSummary& summary, std::int64_t CommunicationTime::*what) {
  const CommunicationTime& time = summary.communication;
  return time.all > 0 ? static_cast<double>(time.*what) / static_cast<double>(time.all) : 0;
}

std::string share_text(const std::optional<double>& share) {
  return share ? fmt::format(", {:.0f}% under compute", 100 * *share) : "";
}

}  // namespace

std::vector<std::string> describe_model(const ModelDefinition& definition) {
  const ParameterCount parameters = count_parameters(definition);
  int moe_layers = 0;
  for (int layer = 0; layer < definition.model.num_layers; ++layer) {
    moe_layers += definition.is_moe_layer(layer) ? 1 : 0;
  }
  std::string text =
      fmt::format("model: {:.2f} M parameters, {:.2f} M for a token, {} layers",
                  static_cast<double>(parameters.total) / 1e6,
                  static_cast<double>(parameters.active) / 1e6, definition.model.num_layers);
  if (moe_layers > 0) {
    text += fmt::format(" ({} with {} experts, top-{})", moe_layers, definition.moe.num_experts,
                        definition.moe.top_k);
  }
  text += fmt::format(", {}, {:.1f} MFLOP a token", name_of(definition.compute),
                      training_flops_per_token(definition) / 1e6);
  return {text};
}

std::vector<std::string> describe_backends(const std::vector<BackendChoice>& choices) {
  // A model has many shapes and few reasons: one line for each operation and backend.
  std::map<std::string, std::set<std::string>> reasons;
  std::vector<std::string> order;
  for (const BackendChoice& choice : choices) {
    const std::string who = choice.operation + ": " + choice.backend;
    if (!reasons.contains(who)) order.push_back(who);
    reasons[who].insert(choice.refusals.begin(), choice.refusals.end());
    if (!choice.remark.empty()) reasons[who].insert(choice.remark);
  }
  std::vector<std::string> lines;
  for (const std::string& who : order) {
    const std::vector<std::string> why(reasons[who].begin(), reasons[who].end());
    lines.push_back("backend of " + who + (why.empty() ? "" : " (" + join(why, "; ") + ")"));
  }
  return lines;
}

std::vector<std::string> describe_summary(const RunSummary& summary) {
  std::vector<std::string> lines;
  const auto row = [&](const std::string& name, const std::string& value) {
    lines.push_back(fmt::format("  {:<22}{}", name, value));
  };
  row("steps", fmt::format("{} ({} now)", summary.steps, summary.steps_now));
  row("tokens", fmt::format("{}", summary.tokens));
  row("time", format_duration(summary.seconds));
  if (summary.steps_now > 0) row("loss", fmt::format("{:.4f}", summary.loss));
  if (summary.validation_loss >= 0) {
    row("validation loss", fmt::format("{:.4f} (perplexity {:.2f})", summary.validation_loss,
                                       std::exp(summary.validation_loss)));
    if (summary.unigram_entropy > 0) {
      row("of unigram entropy",
          fmt::format("{:.2f} ({:.4f} nats)", summary.validation_loss / summary.unigram_entropy,
                      summary.unigram_entropy));
    }
  }
  if (summary.steps_now > 0) {
    const double share = summary.recording_seconds / summary.seconds;
    row("metrics written",
        fmt::format("in {:.3g} ms a step ({:.2g}% of the time)",
                    1e3 * summary.recording_seconds / static_cast<double>(summary.steps_now),
                    100 * share));
  }
  for (int use = 0; use < kMemoryClasses; ++use) {
    const auto kind = static_cast<MemoryClass>(use);
    row("memory: " + std::string(name_of(kind)),
        format_bytes(summary.memory.classes[static_cast<std::size_t>(use)]));
  }
  row("memory: together", format_bytes(summary.memory.account));
  if (summary.memory.process > 0) {
    row("memory: process",
        fmt::format("{} at its peak ({:.2f} of the account)", format_bytes(summary.memory.process),
                    static_cast<double>(summary.memory.process) /
                        static_cast<double>(summary.memory.account)));
  }
  const auto traffic = describe_traffic(summary.traffic, summary.traffic);
  if (!traffic.empty()) lines.emplace_back("  communication per step, all ranks together");
  for (const auto& [group, bytes] : traffic) {
    row("  " + group, bytes + share_text(share_under_compute(summary, group)));
  }
  if (!traffic.empty()) {
    row("  time of it", fmt::format("{:.2g}% of the steps for waiting, {:.2g}% for polls",
                                    100 * share_of_time(summary, &CommunicationTime::waiting),
                                    100 * share_of_time(summary, &CommunicationTime::polling)));
  }
  return lines;
}

nlohmann::json summary_json(const RunSummary& summary) {
  nlohmann::json classes = nlohmann::json::object(), traffic = nlohmann::json::object(),
                 under_compute = nlohmann::json::object();
  nlohmann::json phases = nlohmann::json::array();
  for (std::size_t use = 0; use < summary.memory.classes.size(); ++use) {
    classes[std::string(name_of(static_cast<MemoryClass>(use)))] = summary.memory.classes[use];
  }
  for (std::size_t group = 0; group < summary.traffic.size(); ++group) {
    if (summary.traffic[group] > 0) traffic[kGroupNames[group]] = summary.traffic[group];
    const auto share = share_under_compute(summary, kGroupNames[group]);
    if (share) under_compute[kGroupNames[group]] = *share;
  }
  for (const Phase& phase : summary.phases) {
    phases.push_back({{"name", phase.name}, {"seconds", phase.seconds}});
  }
  nlohmann::json result = {{"steps", summary.steps},
                           {"steps_now", summary.steps_now},
                           {"tokens", summary.tokens},
                           {"seconds", summary.seconds},
                           {"loss", summary.loss},
                           {"validation_loss", nullptr},
                           {"unigram_entropy", nullptr},
                           {"memory",
                            {{"classes", classes},
                             {"account", summary.memory.account},
                             {"process", summary.memory.process}}},
                           {"traffic_per_step", traffic},
                           {"share_under_compute", under_compute},
                           {"share_waiting", share_of_time(summary, &CommunicationTime::waiting)},
                           {"share_polling", share_of_time(summary, &CommunicationTime::polling)},
                           {"phases", phases},
                           {"traced_steps", summary.traced_steps},
                           {"recording_seconds", summary.recording_seconds}};
  if (summary.validation_loss >= 0) result["validation_loss"] = summary.validation_loss;
  if (summary.unigram_entropy > 0) result["unigram_entropy"] = summary.unigram_entropy;
  return result;
}

}  // namespace konclave
