#include "model/batch.hpp"

#include "tensor/host_copy.hpp"

#include <algorithm>
#include <numeric>

namespace konclave {

namespace {

/// 0, step, 2 step, ... with `count` + 1 elements.
std::vector<int> multiples(int count, int step) {
  std::vector<int> values(static_cast<std::size_t>(count) + 1);
  for (int i = 0; i <= count; ++i) values[static_cast<std::size_t>(i)] = i * step;
  return values;
}

TokenRuns make_runs(const ExecSpace& exec, Arena& arena, const std::vector<int>& tokens) {
  std::vector<int> order(tokens.size()), offsets, ids;
  std::iota(order.begin(), order.end(), 0);
  const auto token = [&](int row) { return tokens[static_cast<std::size_t>(row)]; };
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return token(a) < token(b); });
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || token(order[i]) != ids.back()) {
      ids.push_back(token(order[i]));
      offsets.push_back(static_cast<int>(i));
    }
  }
  offsets.push_back(static_cast<int>(order.size()));
  return {upload(exec, arena, order), upload(exec, arena, offsets), upload(exec, arena, ids)};
}

}  // namespace

MicroBatch make_micro_batch(const ExecSpace& exec, Arena& arena, const std::vector<int>& tokens,
                            const std::vector<int>& labels, int sequence_length, int window) {
  const int rows = static_cast<int>(tokens.size());
  require(labels.size() == tokens.size() && rows % sequence_length == 0,
          "a micro-batch has whole sequences and a label for each token");
  const int count = rows / sequence_length;
  const int per_window = window == 0 ? std::max(count, 1) : window;
  require(count % per_window == 0, "a micro-batch of " + std::to_string(count) +
                                       " sequences has no whole routing windows of " +
                                       std::to_string(per_window));
  std::vector<int> positions(tokens.size());
  for (int t = 0; t < rows; ++t) positions[static_cast<std::size_t>(t)] = t % sequence_length;

  MicroBatch batch;
  batch.tokens = upload(exec, arena, tokens);
  batch.labels = upload(exec, arena, labels);
  batch.sequences = {count, rows, sequence_length,
                     upload(exec, arena, multiples(count, sequence_length)),
                     upload(exec, arena, positions)};
  batch.windows.count = count / per_window;
  batch.windows.offsets =
      upload(exec, arena, multiples(batch.windows.count, per_window * sequence_length));
  batch.runs = make_runs(exec, arena, tokens);
  batch.scored = std::count_if(labels.begin(), labels.end(), [](int label) { return label >= 0; });
  return batch;
}

}  // namespace konclave
