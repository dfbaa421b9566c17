#include "train/metrics.hpp"

#include "base/fault.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <span>

namespace konclave {

void read_statistics(const ExecSpace& exec, const MoeStatistics& statistics, const Groups& groups,
                     StepMetrics& metrics) {
  const std::size_t layers = statistics.sums.extent(0), columns = statistics.sums.extent(1);
  if (layers == 0) return;
  const View1<double> flat(statistics.sums.data(), layers * columns);
  std::vector<double> sums = to_host(exec, flat);
  // Each rank of these groups has other tokens, or with pp other layers; the sum goes axis by axis,
  // so that no rank gathers from all others at once.
  for (const auto& group : {groups.tp, groups.cp, groups.dp, groups.pp}) {
    if (!fault("metrics.one_rank")) group->sum(std::span(sums));
  }
  metrics.load_imbalance = 0;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const double* row = sums.data() + layer * columns;
    double total = 0, most = 0;
    for (std::size_t e = 2; e < columns; ++e) {
      total += row[e];
      most = std::max(most, row[e]);
    }
    const auto count = static_cast<double>(layers);
    metrics.aux_loss += row[0] / count;
    metrics.z_loss += row[1] / count;
    if (total > 0)
      metrics.load_imbalance += most * static_cast<double>(columns - 2) / total / count;
  }
}

}  // namespace konclave
