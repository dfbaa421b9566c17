#include "run/evaluation.hpp"

#include "run/batches.hpp"

#include <algorithm>
#include <numeric>

namespace konclave {

Evaluation evaluate(ModelRunner& runner, const Dataset& data, std::int64_t count, int micro_size,
                    const LogitsSink& each, const std::function<void()>& before_each) {
  const Transport& dp = *runner.groups().dp;
  const std::int64_t batches = (count + micro_size - 1) / micro_size;
  const std::int64_t share = (batches + dp.size() - 1) / dp.size();
  std::vector<double> losses, logits;
  std::int64_t scored = 0;
  for (std::int64_t batch = dp.rank() * share; batch < (dp.rank() + 1) * share; ++batch) {
    if (before_each) before_each();
    // A rank that has run out of sequences goes on with none: its experts may be wanted by others.
    const std::int64_t first = std::min(batch * micro_size, count);
    std::vector<std::int64_t> indices(
        static_cast<std::size_t>(std::min<std::int64_t>(micro_size, count - first)));
    std::iota(indices.begin(), indices.end(), first);
    const Evaluation part = runner.evaluate(read_sequences(data, indices), data.sequence_length(),
                                            each ? &logits : nullptr);
    if (each && !indices.empty() && runner.holds_logits()) each(first, logits);
    losses.push_back(part.loss_sum);
    scored += part.scored;
  }
  if (before_each) before_each();
  return {sum_in_order(dp, losses), dp.sum(scored)};
}

}  // namespace konclave
