#pragma once

#include "base/rng.hpp"
#include "checkpoints/upcycle.hpp"
#include "checkpoints/values.hpp"
#include "model/transformer.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// A small dense model; the ffn size is the one that slices are cut of.
inline ModelDefinition small_dense(int hidden, int ffn, int layers, DType compute) {
  ModelDefinition dense;
  dense.model.vocab_size = 5;
  dense.model.sequence_length = 4;
  dense.model.hidden_size = hidden;
  dense.model.num_layers = layers;
  dense.model.num_heads = 1;
  dense.model.head_dim = 2;
  dense.model.ffn_hidden_size = ffn;
  dense.compute = compute;
  return dense;
}

/// The same model with experts.
inline ModelDefinition with_experts(ModelDefinition dense, int experts, int top_k, int ffn) {
  dense.moe.num_experts = experts;
  dense.moe.top_k = top_k;
  dense.moe.ffn_hidden_size = ffn;
  return dense;
}

/// A dense model in memory: numbers of [-1, 1), other ones in each tensor, that its type has.
class DenseInMemory {
 public:
  DenseInMemory(ModelDefinition definition, DType type) : type_(type) {
    model_.name = "memory";
    model_.definition = std::move(definition);
    for (const ParameterSpec& spec : parameter_specs(model_.definition)) {
      add({spec.name, type, spec.shape});
    }
    model_.read = [this](const std::string& tensor, std::int64_t first, std::int64_t count,
                         void* host) {
      convert_values(DType::fp64, values_.at(tensor).data() + first, type_, host, count);
    };
  }
  DenseInMemory(const DenseInMemory&) = delete;
  DenseInMemory& operator=(const DenseInMemory&) = delete;

  DenseModel& model() { return model_; }
  std::vector<double>& values(const std::string& tensor) { return values_.at(tensor); }

  void add(const TensorInfo& info) {
    const RandomStream stream(3, info.name);
    std::vector<double>& values = values_[info.name];
    values.resize(static_cast<std::size_t>(info.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = 2 * stream.uniform(i) - 1;
    std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
    convert_values(DType::fp64, values.data(), type_, bytes.data(), info.elements());
    convert_values(type_, bytes.data(), DType::fp64, values.data(), info.elements());
    model_.tensors.push_back(info);
  }

 private:
  DType type_;
  DenseModel model_;
  std::map<std::string, std::vector<double>> values_;
};

/// What a tensor is filled with.
inline std::vector<double> filled(const TensorSource& tensor) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.info.bytes()));
  tensor.fill(bytes.data());
  std::vector<double> values(static_cast<std::size_t>(tensor.info.elements()));
  convert_values(tensor.info.type, bytes.data(), DType::fp64, values.data(),
                 tensor.info.elements());
  return values;
}

/// The one of this name, without its group.
inline const TensorSource& find_tensor(const std::vector<TensorSource>& tensors,
                                       const std::string& name) {
  for (const TensorSource& tensor : tensors) {
    if (tensor.info.name == kModelGroup + name) return tensor;
  }
  fail("there is no tensor " + name);
}

}  // namespace konclave
