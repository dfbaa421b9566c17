#include "model/batch.hpp"

#include "base/fault.hpp"
#include "layers/sequences.hpp"
#include "parallel/tensor_parallel.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <numeric>

namespace konclave {

namespace {

/// Of every sequence the values at these positions, one sequence after the other.
std::vector<int> pick(const std::vector<int>& values, int length,
                      const std::vector<int>& positions) {
  std::vector<int> picked;
  for (std::size_t first = 0; first < values.size(); first += static_cast<std::size_t>(length)) {
    for (const int position : positions) {
      picked.push_back(values[first + static_cast<std::size_t>(position)]);
    }
  }
  return picked;
}

/// Where the tokens are in this rank's part of the vocabulary.
std::vector<int> localised(std::vector<int> tokens, const MicroBatchForm& form) {
  for (int& token : tokens) {
    token -= form.first_token;
    if (token < 0 || token >= form.vocabulary) token = -1;
  }
  return tokens;
}

TokenRuns make_runs(const ExecSpace& exec, Arena& arena, const std::vector<int>& tokens) {
  const auto token = [&](int row) { return tokens[static_cast<std::size_t>(row)]; };
  std::vector<int> all(tokens.size()), order, offsets, ids;
  std::iota(all.begin(), all.end(), 0);
  std::copy_if(all.begin(), all.end(), std::back_inserter(order),
               [&](int row) { return token(row) >= 0; });
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

/// A part (a window, a sequence) takes the next `rows` rows inside; of those, the ones outside on
/// this rank are as many of begin .. begin + count - 1 as it has, counted from begin.
std::vector<int> part_offsets(int parts, std::int64_t rows, std::int64_t begin,
                              std::int64_t count) {
  std::vector<int> offsets;
  for (int part = 0; part <= parts; ++part) {
    offsets.push_back(static_cast<int>(std::clamp<std::int64_t>(part * rows - begin, 0, count)));
  }
  return offsets;
}

/// Places in their windows of the rows outside: rows inside have the same positions in each
/// sequence.
std::vector<int> window_places(const std::vector<int>& positions, int length,
                               int sequences_per_window, std::int64_t begin, std::int64_t count) {
  const auto rows = static_cast<std::int64_t>(positions.size());
  std::vector<int> places;
  for (std::int64_t row = begin; row < begin + count; ++row) {
    const auto sequence = static_cast<int>(row / rows % sequences_per_window);
    places.push_back(sequence * length + positions[static_cast<std::size_t>(row % rows)]);
  }
  return places;
}

}  // namespace

MicroBatch make_micro_batch(const ExecSpace& exec, Arena& arena, const HostMicroBatch& host,
                            const MicroBatchForm& form, const Groups& groups) {
  const int length = form.sequence_length, all = static_cast<int>(host.tokens.size());
  require(host.labels.size() == host.tokens.size() && all % length == 0,
          "a micro-batch has whole sequences and a label for each token");
  const int count = all / length;
  const int per_window = form.window == 0 ? std::max(count, 1) : form.window;
  require(count % per_window == 0, "a micro-batch of " + std::to_string(count) +
                                       " sequences has no whole routing windows of " +
                                       std::to_string(per_window));
  const int cp = groups.cp->size();
  const std::vector<int> positions = zigzag_positions(length, groups.cp->rank(), cp);
  const std::vector<int> tokens = localised(pick(host.tokens, length, positions), form);
  const TensorParallel tp(groups);

  MicroBatch batch;
  batch.tokens = upload(exec, arena, tokens);
  batch.labels = upload(exec, arena, pick(host.labels, length, positions));
  batch.sequences = make_sequences(exec, arena, count, length, groups.cp->rank(), cp);
  batch.rows_outside = tp.rows_outside(batch.sequences.tokens);
  batch.windows.count = count / per_window;
  batch.windows.tokens = std::int64_t{per_window} * length;
  batch.windows.sequences = count;
  batch.windows.first_token = host.first_sequence * length;
  const std::int64_t begin = tp.shares_rows() ? tp.rank() * batch.rows_outside : 0;
  batch.windows.offsets = upload(
      exec, arena,
      part_offsets(batch.windows.count, batch.windows.tokens / cp, begin, batch.rows_outside));
  batch.windows.sequence_offsets =
      upload(exec, arena, part_offsets(count, length / cp, begin, batch.rows_outside));
  batch.windows.places =
      upload(exec, arena, window_places(positions, length, per_window, begin, batch.rows_outside));
  batch.runs = make_runs(exec, arena, tokens);
  return batch;
}

}  // namespace konclave
