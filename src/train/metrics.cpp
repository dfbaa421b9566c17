#include "train/metrics.hpp"

#include "base/fault.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

namespace konclave {

namespace {

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

/// The figures of all layers from those of each.
void summarise(StepMetrics& metrics) {
  const auto count = static_cast<double>(metrics.layers.size());
  metrics.load_imbalance = 0;
  double chosen = 0, kept = 0;
  for (const LayerMetrics& layer : metrics.layers) {
    metrics.aux_loss += layer.balance_loss() / count;
    metrics.z_loss += layer.z_loss / count;
    metrics.load_imbalance += layer.load_imbalance() / count;
    chosen += sum(layer.chosen);
    kept += sum(layer.kept);
  }
  if (chosen > 0) metrics.dropped_fraction = (chosen - kept) / chosen;
}

}  // namespace

double LayerMetrics::dropped_fraction() const {
  const double all = sum(chosen);
  return all > 0 ? (all - sum(kept)) / all : 0;
}

double LayerMetrics::load_imbalance() const {
  const double all = sum(chosen);
  if (all == 0) return 1;
  return *std::max_element(chosen.begin(), chosen.end()) * static_cast<double>(chosen.size()) / all;
}

double LayerMetrics::overload_factor(int ranks) const {
  const double all = sum(kept);
  if (all == 0) return 1;
  const auto experts = static_cast<std::ptrdiff_t>(kept.size()) / ranks;
  double most = 0;
  for (auto first = kept.begin(); first != kept.end(); first += experts) {
    most = std::max(most, std::accumulate(first, first + experts, 0.0));
  }
  return most * ranks / all;
}

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
  const auto experts =
      static_cast<std::size_t>((static_cast<int>(columns) - MoeStatistics::kTerms) / 3);
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const double* const row = sums.data() + layer * columns;
    const double* const chosen = row + MoeStatistics::kTerms;
    LayerMetrics made;
    made.aux_loss = row[MoeStatistics::kAuxLoss];
    made.seq_aux_loss = row[MoeStatistics::kSeqAuxLoss];
    made.global_aux_loss = row[MoeStatistics::kGlobalAuxLoss];
    made.z_loss = row[MoeStatistics::kZLoss];
    made.entropy = row[MoeStatistics::kEntropy];
    made.chosen.assign(chosen, chosen + experts);
    made.kept.assign(chosen + experts, chosen + 2 * experts);
    made.counted.assign(chosen + 2 * experts, chosen + 3 * experts);
    metrics.layers.push_back(std::move(made));
  }
  summarise(metrics);
}

}  // namespace konclave
