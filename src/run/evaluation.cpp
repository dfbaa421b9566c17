#include "run/evaluation.hpp"

#include <algorithm>
#include <numeric>
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

Evaluation evaluate(ModelRunner& runner, const Dataset& data, std::int64_t count, int micro_size,
                    const std::function<void(const std::vector<double>&)>& each) {
  Evaluation total;
  std::vector<double> logits;
  for (std::int64_t first = 0; first < count; first += micro_size) {
    std::vector<std::int64_t> indices(
        static_cast<std::size_t>(std::min<std::int64_t>(micro_size, count - first)));
    std::iota(indices.begin(), indices.end(), first);
    const Evaluation part = runner.evaluate(read_sequences(data, indices), data.sequence_length(),
                                            each ? &logits : nullptr);
    if (each) each(logits);
    total.loss_sum += part.loss_sum;
    total.scored += part.scored;
  }
  return total;
}

}  // namespace konclave
