#pragma once

#include "data/safetensors.hpp"
#include "model/config.hpp"
#include "train/trainer.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace konclave::oracle {

/// One folder of tests/oracle/data: a model of transformers with its inputs and results.
class Case {
 public:
  Case(const std::string& model, DType compute);

  const std::filesystem::path& folder() const { return folder_; }
  const ModelDefinition& definition() const { return definition_; }
  /// Losses and gradient norms of each step, in the precision of this case.
  std::vector<double> losses() const { return run().at("loss"); }
  std::vector<double> gradient_norms() const { return run().at("grad_norm"); }
  OptimizerConfig optimizer() const;

  int steps() const { return static_cast<int>(losses().size()); }
  /// The micro-batch of a step, labels shifted.
  HostMicroBatch batch(int step) const;
  /// Weights at the start, in the model.
  void load(ModelRunner& runner) const;
  /// "forward", "grads" or "after5" in the precision of this case.
  SafetensorsFile results(const std::string& what) const;

 private:
  const nlohmann::json& run() const { return facts_.at("runs").at(suffix_); }

  std::filesystem::path folder_;
  std::string suffix_;
  nlohmann::json facts_;
  ModelDefinition definition_;
};

/// Values of a tensor of F32, F64, I32 or I64.
std::vector<double> values(const SafetensorsEntry& entry);

}  // namespace konclave::oracle
