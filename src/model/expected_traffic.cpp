#include "model/expected_traffic.hpp"

#include "model/traffic_sizes.hpp"
#include "moe/moe_step.hpp"
#include "moe/sinkhorn.hpp"
#include "parallel/pipeline_layout.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace konclave {

namespace {

constexpr std::int64_t kNumber = sizeof(double);  // or a count of 64 bits
constexpr std::int64_t kIndex = sizeof(int);

/// Adds up the formulas. "A pass" is what one rank does for one micro-batch in one part of the
/// model. Where the ranks of a group have parts of different sizes, a formula gives their average,
/// which is what a sum over the group wants.
class Counter {
 public:
  Counter(const StepShape& step, bool rows_go_again, int sinkhorn_rounds,
          const TrafficWindow& of_window)
      : model_(step.definition.model),
        moe_(step.definition.moe),
        parallel_(step.parallel),
        of_(step),
        shares_rows_(TrafficSizes::shares_rows(step)),
        rows_go_again_(rows_go_again),
        sinkhorn_rounds_(sinkhorn_rounds),
        of_window_(of_window) {
    for (int layer = 0; layer < model_.num_layers; ++layer) {
      attention();
      if (step.definition.is_moe_layer(layer)) {
        moe();
      } else {
        mlp();
      }
    }
    forward_again(step);
    embedding_and_head();
    stages();
    numbers(step.definition.num_moe_layers());
  }

  const TrafficBytes& bytes() const { return bytes_; }

 private:
  void add(const TrafficGroup& group, const char* collective, std::int64_t bytes) {
    if (group.size > 1 && bytes > 0) bytes_[{group.name, collective}] += bytes;
  }
  /// On all ranks that have a layer, in all of their passes.
  void add_passes(const TrafficGroup& group, const char* collective, std::int64_t bytes) {
    add(group, collective, of_.tp_dp_cp.size * of_.micro_batches * bytes);
  }

  /// The ways between the regions of a layer, (T,H) rows each. With overlap pieces go between two
  /// ranks each (Entering, Leaving), and a rank's own rows nowhere.
  void regions(std::int64_t enters, std::int64_t leaves) {
    if (!shares_rows_ || !parallel_.overlap_tp) {
      regions_at_once(enters, leaves);
      return;
    }
    const std::int64_t rows = (of_.inside - of_.outside) * row_bytes();
    add_passes(of_.tp, "all_to_all", (enters + leaves) * rows);
  }
  /// TensorParallel: with sequence parallelism `enter` gathers all rows, and in `leave` each rank
  /// gets its rows of every rank's. Without it, `enter` is nothing, and after a sum of slices
  /// `leave` gathers them.
  void regions_at_once(std::int64_t enters, std::int64_t leaves) {
    const std::int64_t rows = of_.inside * row_bytes();
    add_passes(of_.tp, "all_gather", (shares_rows_ ? enters : leaves) * rows);
    add_passes(of_.tp, "all_to_all", leaves * rows);
  }

  /// What is done again for backward of all this.
  void forward_again(const StepShape& step) {
    const RecomputeConfig& recompute = step.recompute;
    const PipelineLayout layout = make_pipeline_layout(parallel_, model_.num_layers);
    for (int stage = 0; stage < layout.stages(); ++stage) {
      for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
        const ModelPart& part = layout.part(stage, chunk);
        for (const LayerGroup& group : layer_groups(recompute, part.layers)) {
          for (int layer = group.first; layer < group.last; ++layer) {
            const bool is_moe = step.definition.is_moe_layer(part.first_layer + layer);
            if (group.again || recompute.repeats("core_attn")) core_once();
            if (group.again) regions(/*enters=*/1, /*leaves=*/1);
            const bool whole = group.again || recompute.repeats(is_moe ? "moe" : "mlp");
            if (whole && is_moe) moe_once();
            const bool shared = is_moe && moe_.shared_ffn_hidden_size > 0;
            const bool dense = whole || (shared && recompute.repeats("shared_experts"));
            if (dense && (shared || !is_moe)) regions(/*enters=*/1, /*leaves=*/1);
          }
        }
      }
    }
  }

  /// Forward enters with x; backward with the gradient, and with x again for the weights.
  void attention() {
    regions(/*enters=*/3, /*leaves=*/2);
    attention_over_cp();
    const std::int64_t hidden = model_.hidden_size, head = model_.head_size();
    const std::int64_t queries = model_.num_heads * head, keys = model_.kv_heads() * head;
    const std::int64_t bias = model_.qkv_bias ? 1 : 0;
    parted_gradients(2 * hidden * queries + bias * queries);
    const std::int64_t of_keys = 2 * (hidden + bias) * keys;
    if (model_.kv_heads() % of_.tp.size == 0) {
      parted_gradients(of_keys);
    } else {
      inside_gradients(of_keys, of_.element);
    }
    if (model_.qk_norm) inside_gradients(2 * head, of_.wide);
    outside_gradients(2 * hidden);  // the norms of the layer
  }

  /// Queries and outputs of a rank are (T, N D / tp), keys and values (T, Nkv D / tp), one head at
  /// least.
  void attention_over_cp() {
    const std::int64_t others = of_.cp.size - 1, queries = queries_of_a_rank(),
                       keys = keys_of_a_rank();
    core_once();
    if (parallel_.cp_comm == "ring") {
      // Keys and values of all others once more; sums of their gradients come round too, and home.
      add_passes(of_.cp, "receive", 2 * others * keys * of_.element);
      add_passes(of_.cp, "receive", 2 * of_.cp.size * keys * of_.wide);
    } else if (parallel_.cp_comm == "all_gather") {
      // Keys and values once more, and this rank's part of everybody's gradients.
      add_passes(of_.cp, "all_gather", 2 * of_.cp.size * keys * of_.element);
      add_passes(of_.cp, "all_to_all", 2 * of_.cp.size * keys * of_.element);
    } else {
      add_passes(of_.cp, "all_to_all", (2 * queries + 2 * keys) * of_.element);
    }
  }

  /// Forward: keys and values of all others, or q, k, v and o.
  void core_once() {
    const std::int64_t others = of_.cp.size - 1, queries = queries_of_a_rank(),
                       keys = keys_of_a_rank();
    if (parallel_.cp_comm == "ring") {
      add_passes(of_.cp, "receive", 2 * others * keys * of_.element);
    } else if (parallel_.cp_comm == "all_gather") {
      add_passes(of_.cp, "all_gather", 2 * of_.cp.size * keys * of_.element);
    } else {
      add_passes(of_.cp, "all_to_all", (2 * queries + 2 * keys) * of_.element);
    }
  }
  std::int64_t head_of_a_rank() const { return of_.inside * model_.head_size(); }
  std::int64_t queries_of_a_rank() const {
    return model_.num_heads / of_.tp.size * head_of_a_rank();
  }
  std::int64_t keys_of_a_rank() const {
    return std::max<std::int64_t>(1, model_.kv_heads() / of_.tp.size) * head_of_a_rank();
  }

  void mlp() {
    regions(/*enters=*/3, /*leaves=*/2);
    parted_gradients(3 * std::int64_t{model_.hidden_size} * model_.ffn_hidden_size);
  }

  void moe() {
    moe_once();
    running_load();
    if (moe_.dispatcher == "allgather") {
      all_gather_back();
    } else {
      all_to_all_back();
    }
    const std::int64_t hidden = model_.hidden_size, experts = moe_.num_experts;
    outside_gradients(experts * hidden);  // the router
    shared_experts();
    add_gradients(of_.edp, 3 * experts * hidden * moe_.ffn_hidden_size, of_.element);
  }

  /// Forward alone, without shared experts.
  void moe_once() {
    balance();
    capacity();
    if (moe_.dispatcher == "allgather") {
      all_gather_once();
    } else {
      all_to_all_once();
    }
  }

  /// A dense MLP, beside a gate that is used outside.
  void shared_experts() {
    const std::int64_t hidden = model_.hidden_size;
    if (moe_.shared_ffn_hidden_size == 0) return;
    regions(/*enters=*/3, /*leaves=*/2);
    parted_gradients(3 * hidden * moe_.shared_ffn_hidden_size);
    if (moe_.shared_gate) outside_gradients(hidden);
  }

  /// Counts and sums of scores of the sequences, (2Q,E) in double, summed in order; forward only.
  void balance() {
    const bool counts =
        moe_.aux_loss_coefficient("aux_loss") > 0 || moe_.aux_loss_coefficient("seq_aux_loss") > 0;
    const std::int64_t sequences = of_.inside * of_.cp.size / model_.sequence_length;
    if (counts) sums_of_windows(2 * sequences);
    const std::int64_t windows = moe_.window == 0 ? 1 : sequences / moe_.window;
    if (moe_.balances_by("sinkhorn")) sums_of_windows(sinkhorn_rounds_ * windows);
  }
  /// Counts of a micro-batch, (E) in double, over the ranks that share it and over dp. What is done
  /// again for backward finds them.
  void running_load() {
    if (!moe_.goes_by_running_load()) return;
    for (const TrafficGroup& group : {of_.tp_cp, of_.dp}) sums_over(group, /*rows=*/1);
  }
  /// With a capacity, a number of the router's type for each token and expert of the windows.
  void capacity() {
    if (moe_.capacity_factor == 0) return;
    const std::int64_t bytes = of_.inside * of_.cp.size * moe_.num_experts * of_.wide;
    add_passes(of_.tp_cp, "all_to_all", bytes);
    add_passes(of_.tp_cp, "all_gather", bytes);
  }
  void sums_of_windows(std::int64_t rows) { sums_over(of_.tp_cp, rows); }
  void sums_over(const TrafficGroup& group, std::int64_t rows) {
    const std::int64_t bytes = rows * moe_.num_experts * kNumber;
    add_passes(group, "all_to_all", bytes);
    add_passes(group, "all_gather", bytes);
  }

  /// For every assignment that is left, in all passes. A rank's share of a window need not have a
  /// whole number of them.
  void add_assignments(const TrafficGroup& group, const char* collective, std::int64_t bytes) {
    const std::int64_t tokens = of_.tp_dp_cp.size * of_.micro_batches * of_.outside;
    add(group, collective, tokens * of_window_.assignments / of_window_.tokens * bytes);
  }

  std::int64_t row_bytes() const { return model_.hidden_size * of_.element; }

  /// A rank sends T K rows and gets as many, on the average over ep. Their way: to a rank of ep and
  /// from there to all of its etp; the way back: what a rank of ep brought there, from each of etp,
  /// to be summed, and home. Forward takes rows and weights there and rows back, backward rows
  /// there and rows and gradients of weights back.
  void all_to_all_once() {
    if (of_.etp_ep.size == 1) return;
    const std::int64_t counts = moe_.num_experts * kNumber;
    add_passes(of_.ep, "gather", of_.ep.size * counts);
    add_passes(of_.etp, "gather", of_.etp_ep.size * counts);
    rows_of_all_to_all(row_bytes() + of_.wide, row_bytes());
  }
  void all_to_all_back() {
    if (of_.etp_ep.size == 1) return;
    const std::int64_t row = row_bytes(), weight = of_.wide;
    rows_of_all_to_all(row + (rows_go_again_ ? row + weight : 0), row + weight);
  }
  /// Bytes of an assignment.
  void rows_of_all_to_all(std::int64_t there, std::int64_t back) {
    add_assignments(of_.ep, "all_to_all", there + back);
    add_assignments(of_.etp, "all_to_all", of_.etp.size * (there + back));
  }

  /// Every rank gets the tokens of all, the ends of each token's choices, the choices and their
  /// weights; back come each rank's sums for the own tokens. Backward likewise, with gradients.
  void all_gather_once() {
    const std::int64_t all = of_.etp_ep.size, tokens = of_.outside;
    add_passes(of_.etp_ep, "gather", all * (moe_.num_experts + 1) * kNumber);
    const std::int64_t rows = tokens * row_bytes();
    add_passes(of_.etp_ep, "all_gather", all * (tokens * kIndex + rows));
    add_assignments(of_.etp_ep, "all_gather", all * (kIndex + of_.wide));
    add_passes(of_.etp_ep, "all_to_all", all * rows);
  }
  void all_gather_back() {
    const std::int64_t all = of_.etp_ep.size, rows = of_.outside * row_bytes();
    add_passes(of_.etp_ep, "all_gather", all * rows);
    add_passes(of_.etp_ep, "all_to_all", all * rows);
    add_assignments(of_.etp_ep, "all_to_all", all * of_.wide);
  }

  /// The embedding leaves with what each part of the vocabulary has; its backward enters. The head
  /// enters, and its gradient leaves; of each row all ranks of tp get three numbers of every other.
  void embedding_and_head() {
    regions_at_once(/*enters=*/2, /*leaves=*/2);
    add_passes(of_.tp, "all_gather", of_.tp.size * of_.inside * 3 * of_.wide);
    const std::int64_t matrix = std::int64_t{model_.vocab_size} * model_.hidden_size;
    const bool one_matrix = model_.tie_embeddings && of_.pp.size == 1;
    parted_gradients((one_matrix ? 1 : 2) * matrix);
    outside_gradients(model_.hidden_size);  // the last norm
  }

  /// Each part of the model but the first receives a micro-batch, each but the last its gradient;
  /// the first and the last stage each other's gradient of a tied embedding.
  void stages() {
    const std::int64_t parts =
        of_.pp.size * make_pipeline_layout(parallel_, model_.num_layers).chunks();
    add_passes(of_.pp, "receive", 2 * (parts - 1) * of_.outside * row_bytes());
    if (!model_.tie_embeddings) return;
    const std::int64_t matrix = std::int64_t{model_.vocab_size} * model_.hidden_size;
    const std::int64_t times = parallel_.distributed_optimizer ? 1 : of_.dp_cp.size;
    add(of_.pp, "receive", 2 * times * matrix * of_.wide);
  }

  // Gradients, of so many elements in the whole model.

  /// In order: each rank sums a slice of all ranks', and gets all other sums or, where state is
  /// distributed, the new values, of `value` bytes. The library's way counts once. All groups of a
  /// stage together have `elements`.
  void add_gradients(const TrafficGroup& group, std::int64_t elements, std::int64_t value) {
    const std::int64_t all = group.size * elements;
    if (parallel_.grad_reduce == "library") {
      add(group, "all_reduce", all * of_.wide);
    } else {
      add(group, "all_to_all", all * of_.wire);
      add(group, "all_gather", all * (parallel_.distributed_optimizer ? value : of_.wide));
    }
  }
  /// Each rank of tp has a part.
  void parted_gradients(std::int64_t elements) { add_gradients(of_.dp_cp, elements, of_.element); }
  /// Each rank of tp has all, and used it on its part of the heads.
  void inside_gradients(std::int64_t elements, std::int64_t value) {
    add_gradients(of_.tp.size > 1 ? of_.tp_dp_cp : of_.dp_cp, elements, value);
  }
  /// Each rank of tp has all, and used it on the rows outside, which are its own or the same
  /// everywhere; norms and routers, whose values are as wide as sums.
  void outside_gradients(std::int64_t elements) {
    if (shares_rows_) {
      add_gradients(of_.tp_dp_cp, elements, of_.wide);
    } else {
      add_gradients(of_.dp_cp, of_.tp.size * elements, of_.wide);
    }
  }

  /// Numbers that every rank gathers from all of its group.
  void add_numbers(const TrafficGroup& group, std::int64_t count) {
    add(group, "gather", of_.tp_dp_cp.size * of_.pp.size * group.size * count * kNumber);
  }
  /// TrafficSizes of the batch (4) and the loss of each micro-batch; the squared norms of dense
  /// parameters and experts; the statistics of each MoE layer.
  void numbers(std::int64_t moe_layers) {
    add_numbers(of_.dp, 4);
    for (const TrafficGroup& group : {of_.dp, of_.cp, of_.pp})
      add_numbers(group, of_.micro_batches);
    add_numbers(of_.tp, 1);
    add_numbers(of_.etp_ep, 1);
    if (parallel_.distributed_optimizer) {
      add_numbers(of_.dp_cp, 1);
      add_numbers(of_.edp, 1);
    }
    add_numbers(of_.pp, 2);
    for (const TrafficGroup& group : {of_.tp, of_.cp, of_.dp, of_.pp}) {
      add_numbers(group, moe_layers * MoeStatistics::columns(moe_.num_experts));
    }
  }

  const ModelConfig& model_;
  const MoeConfig& moe_;
  const ParallelConfig& parallel_;
  TrafficSizes of_;
  bool shares_rows_, rows_go_again_;
  int sinkhorn_rounds_;
  TrafficWindow of_window_;
  TrafficBytes bytes_;
};

}  // namespace

ExpectedTraffic expected_traffic(const StepShape& step) {
  const auto [fewest, most] = rows_of_busiest(step);
  const std::int64_t budget = step.definition.moe.receive_budget;
  const bool bounded = budget > 0;
  const std::pair<TrafficWindow, TrafficWindow> rows = rows_of_window(step);
  return {Counter(step, bounded && budget < fewest, 1, rows.first).bytes(),
          Counter(step, bounded && budget < most, kMostSinkhornRounds, rows.second).bytes()};
}

}  // namespace konclave
