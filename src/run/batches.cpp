#include "run/batches.hpp"

#include "base/fault.hpp"

#include <algorithm>
#include <span>

namespace konclave {

HostMicroBatch read_sequences(const Dataset& data, const std::vector<std::int64_t>& indices) {
  const auto length = static_cast<std::size_t>(data.sequence_length());
  HostMicroBatch batch{std::vector<int>(length * indices.size()),
                       std::vector<int>(length * indices.size())};
  for (std::size_t i = 0; i < indices.size(); ++i) {
    data.read(indices[i], std::span(batch.tokens).subspan(i * length, length),
              std::span(batch.labels).subspan(i * length, length));
  }
  return batch;
}

std::vector<HostMicroBatch> read_batch(const Dataset& data, const Sampler& sampler,
                                       const BatchConfig& batch, std::int64_t samples, int rank,
                                       int ranks) {
  const int share = batch.global_size / ranks;
  const int begin = fault("data.same_share") ? 0 : share * rank;
  std::vector<HostMicroBatch> batches;
  for (int first = begin; first < begin + share; first += batch.micro_size) {
    std::vector<std::int64_t> indices;
    for (int i = 0; i < batch.micro_size; ++i) indices.push_back(sampler(samples + first + i));
    batches.push_back(read_sequences(data, indices));
    batches.back().first_sequence = samples + first;
    std::vector<int>& labels = batches.back().labels;
    if (fault("data.labels_shifted") && rank > 0) {
      std::rotate(labels.begin(), labels.begin() + 1, labels.end());
    }
  }
  return batches;
}

}  // namespace konclave
