// routing_counts DECK [key=value ...]: trains a deck on one rank, without a run folder, and prints
// an object for each step: {"loss": x, "assignments": [sequence][MoE layer][expert]}.

#include "data/corpus.hpp"
#include "deck/deck.hpp"
#include "ops/backend_list.hpp"
#include "run/batches.hpp"
#include "tensor/host_copy.hpp"
#include "tensor/kokkos.hpp"
#include "train/trainer.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace konclave {
namespace {

nlohmann::json counts_of(ModelRunner& runner, const HostMicroBatch& sequence) {
  const MoeStep step = runner.moe_step(/*training=*/true);
  runner.train({sequence}, {/*loss_scale=*/0, step});
  StepMetrics metrics;
  read_statistics(runner.exec(), step.statistics, runner.groups(), metrics);
  nlohmann::json result = nlohmann::json::array();
  for (const LayerMetrics& layer : metrics.layers) {
    result.push_back(std::vector<std::int64_t>(layer.chosen.begin(), layer.chosen.end()));
  }
  return result;
}

void print_steps(const Deck& deck) {
  const int length = deck.definition.model.sequence_length;
  const Corpus corpus = open_corpus(deck.data, length, deck.definition.model.vocab_size);
  ModelRunner runner(deck.definition, Groups::alone(), /*trainable=*/true, built_backends(),
                     deck.backends);
  Trainer trainer(runner, deck.optimizer, deck.run.steps);
  runner.model().initialise(runner.exec(), deck.run.seed);
  runner.weights_changed();
  trainer.optimizer().reset(runner.exec());
  for (std::int64_t step = 1; step <= deck.run.steps; ++step) {
    std::vector<std::int64_t> indices(static_cast<std::size_t>(deck.batch.global_size));
    std::iota(indices.begin(), indices.end(), (step - 1) * deck.batch.global_size);
    nlohmann::json assignments = nlohmann::json::array();
    for (const std::int64_t index : indices) {
      assignments.push_back(counts_of(runner, read_sequences(*corpus.train, {index})));
    }
    const double loss = trainer.step(step, {read_sequences(*corpus.train, indices)}).loss;
    fmt::print("{}\n", nlohmann::json{{"loss", loss}, {"assignments", assignments}}.dump());
  }
}

}  // namespace
}  // namespace konclave

int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);
  konclave::print_steps(konclave::read_deck(argv[1], {argv + 2, argv + argc}));
}
