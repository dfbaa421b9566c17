#include "bench/batches.hpp"

#include "base/rng.hpp"

namespace konclave {

HostMicroBatch random_micro_batch(const ModelConfig& model, int sequences, std::uint64_t number) {
  const RandomStream stream(number, "bench.tokens");
  const int length = model.sequence_length;
  HostMicroBatch batch;
  for (int at = 0; at < sequences * length; ++at) {
    batch.tokens.push_back(static_cast<int>(stream.bits(static_cast<std::uint64_t>(at)) %
                                            static_cast<std::uint64_t>(model.vocab_size)));
  }
  batch.labels.assign(batch.tokens.begin() + 1, batch.tokens.end());
  batch.labels.push_back(-1);
  for (std::size_t last = static_cast<std::size_t>(length) - 1; last < batch.labels.size();
       last += static_cast<std::size_t>(length)) {
    batch.labels[last] = -1;
  }
  return batch;
}

std::vector<HostMicroBatch> random_batch(const BenchSetup& setup, std::int64_t step) {
  const BatchConfig& form = setup.deck.batch;
  const int share = form.global_size / setup.groups.dp->size() / form.micro_size;
  const std::int64_t first =
      step * (form.global_size / form.micro_size) + std::int64_t{setup.groups.dp->rank()} * share;
  std::vector<HostMicroBatch> batches;
  for (std::int64_t number = first; number < first + share; ++number) {
    batches.push_back(random_micro_batch(setup.deck.definition.model, form.micro_size,
                                         static_cast<std::uint64_t>(number)));
  }
  return batches;
}

}  // namespace konclave
