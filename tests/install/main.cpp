// Uses the installed package from outside: headers are found, libraries link, and a model runs.
#include "base/error.hpp"
#include "base/version.hpp"
#include "ops/backend_list.hpp"
#include "train/trainer.hpp"

#include <cmath>
#include <iostream>

int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);

  konclave::ModelDefinition definition;
  definition.compute = konclave::DType::fp32;
  definition.model = {
      .vocab_size = 32, .sequence_length = 8, .hidden_size = 16, .num_layers = 1, .num_heads = 2};
  definition.moe = {.num_experts = 4, .top_k = 2, .ffn_hidden_size = 16};
  konclave::ModelRunner runner(definition, konclave::Groups::alone(), /*trainable=*/false,
                               konclave::built_backends(), {});
  runner.model().initialise(runner.exec(), /*seed=*/1);
  runner.weights_changed();

  const konclave::HostMicroBatch batch{{1, 2, 3, 4, 5, 6, 7, 8}, {2, 3, 4, 5, 6, 7, 8, -1}};
  const double loss = runner.evaluate(batch, /*sequence_length=*/8).loss();
  konclave::require(std::abs(loss - std::log(32.0)) < 0.1, "an untrained model knows nothing");
  std::cout << "Konclave " << konclave::version() << '\n';
}
