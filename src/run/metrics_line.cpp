#include "run/metrics_line.hpp"

#include <fmt/format.h>

namespace konclave {

std::vector<std::int64_t> moe_layers(const ModelDefinition& definition) {
  std::vector<std::int64_t> layers;
  for (int layer = 0; layer < definition.model.num_layers; ++layer) {
    if (definition.is_moe_layer(layer)) layers.push_back(layer);
  }
  return layers;
}

nlohmann::json metrics_line(const StepFacts& facts, const StepMetrics& metrics) {
  nlohmann::json line = {{"step", facts.step},
                         {"tokens", facts.tokens},
                         {"loss", metrics.loss},
                         {"lr", facts.learning_rate},
                         {"grad_norm", metrics.grad_norm},
                         {"aux_loss", metrics.aux_loss},
                         {"z_loss", metrics.z_loss},
                         {"load_imbalance", metrics.load_imbalance},
                         {"dropped_fraction", metrics.dropped_fraction},
                         {"seconds", facts.seconds},
                         {"tokens_per_second", static_cast<double>(metrics.tokens) / facts.seconds},
                         {"tflops", facts.flops / facts.seconds / 1e12},
                         {"mfu", nullptr},
                         {"memory_bytes", facts.memory_bytes}};
  if (facts.validation_loss >= 0) line["val_loss"] = facts.validation_loss;
  return line;
}

nlohmann::json layer_lines(const StepMetrics& metrics, const ModelDefinition& definition, int ep) {
  const std::vector<std::int64_t> numbers = moe_layers(definition);
  nlohmann::json lines = nlohmann::json::array();
  for (std::size_t at = 0; at < metrics.layers.size(); ++at) {
    const LayerMetrics& layer = metrics.layers[at];
    nlohmann::json line = {{"layer", numbers.at(at)},
                           {"aux_loss", layer.aux_loss},
                           {"z_loss", layer.z_loss},
                           {"entropy", layer.entropy},
                           {"load_imbalance", layer.load_imbalance()},
                           {"dropped_fraction", layer.dropped_fraction()},
                           {"overload_factor", layer.overload_factor(ep)}};
    if (definition.moe.balances_by("seq_aux_loss")) line["seq_aux_loss"] = layer.seq_aux_loss;
    if (definition.moe.balances_by("global_aux_loss")) {
      line["global_aux_loss"] = layer.global_aux_loss;
    }
    lines.push_back(std::move(line));
  }
  return lines;
}

std::vector<Scalar> scalars_of(const nlohmann::json& line) {
  std::vector<Scalar> scalars;
  for (const char* name : {"loss", "val_loss", "lr", "grad_norm", "aux_loss", "z_loss",
                           "load_imbalance", "dropped_fraction", "tokens_per_second"}) {
    if (line.contains(name)) scalars.emplace_back(name, line[name].get<double>());
  }
  for (const nlohmann::json& layer : line.value("layers", nlohmann::json::array())) {
    const auto number = layer.at("layer").get<std::int64_t>();
    for (const auto& [name, value] : layer.items()) {
      if (name == "layer") continue;
      scalars.emplace_back(fmt::format("layer_{:02}/{}", number, name), value.get<double>());
    }
  }
  return scalars;
}

}  // namespace konclave
