#include "layers/attention.hpp"
#include "layers/mlp.hpp"
#include "layers/sequences.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/mpi/timed_operations.hpp"
#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// Layers whose rows travel over tp beside products, against the same layers without overlap: the
/// same results, in less of a virtual time.
namespace konclave {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

enum class Kind { mlp, attention };

/// A layer, and `rows` of the region outside in `sequences` sequences.
struct Form {
  Kind kind = Kind::mlp;
  std::int64_t rows = 0;
  int sequences = 1;
  DType type = DType::fp64;
  int hidden = 12, ffn = 24, heads = 12, kv_heads = 12, head_dim = 4;
  bool core_again = false;
};

/// Tensors by their names.
using Results = std::map<std::string, std::vector<double>>;

/// A layer of this rank and its memory.
class Layer {
 public:
  Layer(const Form& form, const Groups& groups, OpTable table, const BackendConfig& backends = {})
      : form_(form), operations_(std::move(table), backends, account_) {
    const TensorParallel tp(groups);
    const ParameterStorage storage{&weights_, &gradients_};
    if (form.kind == Kind::mlp) {
      mlp_.emplace("mlp", MlpConfig{form.hidden, form.ffn, form.type}, tp, storage);
    } else {
      SelfAttentionConfig config{form.hidden, form.heads, form.kv_heads, form.head_dim, form.type};
      config.qkv_bias = true;
      attention_.emplace("attention", config, groups, storage);
      attention_->repeat_core(form.core_again);
      const int cp = groups.cp->size(),
                length = static_cast<int>(tp.rows_inside(form.rows)) / form.sequences * cp;
      sequences_ = make_sequences(exec_, weights_, form.sequences, length, groups.cp->rank(), cp);
      rotary_.emplace(exec_, rotary_frequencies(form.head_dim, 50, {}), length, form.type,
                      weights_);
    }
    const std::string rank = std::to_string(tp.rank());
    visit([&](Parameter& parameter) {
      const bool is_part = !parameter.placement().on_all_tp;
      std::vector<double> values =
          random_values(parameter.name() + (is_part ? " of " + rank : ""), parameter.size());
      for (double& value : values) value *= 0.5;
      from_doubles(exec_, values, parameter.value());
    });
    if (mlp_) mlp_->prepare(exec_, operations_);
    if (attention_) attention_->prepare(exec_, operations_);
    visit([&](Parameter& parameter) { parameter.restart_gradient(); });
    x_ = tensors_.random("x of " + rank, form.type, form.rows, form.hidden);
    y_ = tensors_.poisoned(form.type, form.rows, form.hidden);
    gradient_ = tensors_.random("dy of " + rank, form.type, form.rows, form.hidden);
  }

  void forward() {
    if (mlp_) mlp_->forward(context(), x_, mlp_saved_, y_);
    if (attention_) attention_->forward(context(), *rotary_, sequences_, x_, saved_, y_);
  }
  /// Of a gradient in whose place the one of x comes.
  void backward() {
    if (mlp_) mlp_->backward(context(), mlp_saved_, gradient_, gradient_);
    if (attention_) {
      attention_->backward(context(), *rotary_, sequences_, saved_, gradient_, gradient_);
    }
  }

  Results results() {
    Results all{{"y", to_doubles(exec_, y_)}, {"dx", to_doubles(exec_, gradient_)}};
    visit(
        [&](Parameter& parameter) { all[parameter.name()] = to_doubles(exec_, parameter.grad()); });
    EXPECT_EQ(scratch_.mark().total, 0U) << "all scratch memory is given back";
    return all;
  }

 private:
  Context context() { return {exec_, operations_, activations_, scratch_}; }
  template <typename Visitor> void visit(Visitor&& visitor) {
    if (mlp_) mlp_->visit_parameters(visitor);
    if (attention_) attention_->visit_parameters(visitor);
  }

  Form form_;
  ExecSpace exec_;
  Tensors tensors_{exec_};
  MemoryAccount account_;
  Arena weights_{account_, MemoryClass::weights, "weights"};
  Arena gradients_{account_, MemoryClass::gradients, "gradients"};
  Arena activations_{account_, MemoryClass::activations, "activations"};
  Arena scratch_{account_, MemoryClass::buffers, "scratch"};
  Operations operations_;
  std::optional<Mlp> mlp_;
  Mlp::Saved mlp_saved_;
  std::optional<SelfAttention> attention_;
  SelfAttention::Saved saved_;
  Sequences sequences_;
  std::optional<Rotary> rotary_;
  AnyView x_, y_, gradient_;
};

/// All ranks with this cp, and the others of tp; their messages over tp are late.
class OverlapTp : public testing::Test {
 protected:
  static ParallelConfig parallel(int cp = 1) {
    ParallelConfig config;
    config.cp = cp;
    config.tp = Communicator::world().size() / cp;
    config.sp = true;
    return config;
  }
  static Groups late(const AllRanks& all, bool overlap, const std::shared_ptr<VirtualClock>& clock,
                     double bandwidth) {
    Groups groups = all.groups;
    groups.parallel.overlap_tp = overlap;
    groups.tp = std::make_shared<DelayedTransport>(groups.tp, clock, Link{0, bandwidth, true});
    return groups;
  }

  static Results results(const AllRanks& all, const Form& form, bool overlap,
                         const std::string& backend) {
    const Groups groups = late(all, overlap, std::make_shared<VirtualClock>(), 1e6);
    Layer layer(form, groups, built_backends(), {backend, backend, backend});
    layer.forward();
    layer.backward();
    return layer.results();
  }

  /// Forms whose rows are one piece, and several that differ.
  static std::vector<Form> forms() {
    std::vector<Form> all;
    for (const std::int64_t rows : {6, 201}) {
      for (const DType type : {DType::bf16, DType::fp64}) {
        all.push_back({Kind::mlp, rows, 1, type});
        all.push_back({Kind::attention, rows, 3, type});
        all.push_back({.kind = Kind::attention,
                       .rows = rows,
                       .sequences = 3,
                       .type = type,
                       .kv_heads = 1,
                       .core_again = true});
      }
    }
    all.push_back({Kind::mlp, 0});
    return all;
  }
};

std::string describe(const Form& form) {
  return std::string(form.kind == Kind::mlp ? "mlp" : "attention") + " of " +
         std::to_string(form.rows) + " rows, " + std::string(name_of(form.type)) + ", " +
         std::to_string(form.kv_heads) + " kv heads";
}

/// With `reference`, a row of a product does not depend on the others: results have the same bits.
TEST_F(OverlapTp, LayersGiveTheSameResults) {
  const int ranks = Communicator::world().size();
  for (const int cp : {1, 2}) {
    if (ranks % cp != 0 || ranks < 2 * cp) continue;
    const AllRanks all(parallel(cp));
    for (const Form& form : forms()) {
      SCOPED_TRACE(testing::Message() << describe(form) << ", cp " << cp);
      EXPECT_EQ(results(all, form, true, "reference"), results(all, form, false, "reference"));
    }
  }
}

/// Other backends may take sums in another order where there are few rows.
TEST_F(OverlapTp, LayersGiveTheSameResultsToRoundingWithAnyBackend) {
  if (Communicator::world().size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const AllRanks all(parallel());
  for (const Form& form : forms()) {
    SCOPED_TRACE(describe(form));
    const Results beside = results(all, form, true, "auto"),
                  apart = results(all, form, false, "auto");
    for (const auto& [name, values] : apart) {
      EXPECT_TRUE(close(beside.at(name), values, tolerance(form.type))) << name;
    }
  }
}

/// How long the layers take, by a clock that products and messages move.
class OverlapTpInTime : public OverlapTp {
 protected:
  struct Seconds {
    double forward = 0, backward = 0;
    double longest = 0;  ///< product
    double all() const { return forward + backward; }
  };

  /// As many rows as make the most pieces, all of the smallest size.
  Form form(Kind kind) const {
    const std::int64_t others = all_.groups.tp->size() - 1;
    const std::int64_t pieces = (TensorParallel::kPieces + others - 1) / others;
    Form form{kind, pieces * TensorParallel::kLeastRows};
    form.sequences = static_cast<int>(inside(form) / kSequence);
    form.hidden = form.ffn = 48;
    return form;
  }
  std::int64_t inside(const Form& form) const { return form.rows * all_.groups.tp->size(); }

  /// With messages of `bandwidth` bytes a second that move for `window` seconds behind each call.
  Seconds run(const Form& form, bool overlap, double bandwidth, double window, bool polls = true) {
    const auto clock = std::make_shared<VirtualClock>(window);
    if (!polls) clock->ignore_polls();
    virtual_work = {clock.get(), kSequence};
    Layer layer(form, late(all_, overlap, clock, bandwidth), timed_table());
    layer.forward();
    const double forward = clock->now();
    layer.backward();
    return {forward, clock->now() - forward, virtual_work.longest};
  }

  /// Of what is beside each other with overlap: products with rows that enter, that make what
  /// leaves; in backward those that make the gradient of what left, and all others of the layer.
  /// Attention's core in forward has nothing beside it: what enters must be there, and nothing
  /// leaves yet.
  struct Works {
    double entering, leaving, of_gradient, others, core;
    double beside_messages() const { return entering + leaving + of_gradient + others; }
  };
  Works computing(const Form& form) const {
    const double rows = static_cast<double>(inside(form)), columns = 48.0 / all_.groups.tp->size();
    const double product = 2 * rows * 48 * columns / VirtualWork::kOperationsPerSecond;
    if (form.kind == Kind::mlp) return {2 * product, product, product, 5 * product, 0};
    const double core = 4 * rows * columns * kSequence / VirtualWork::kOperationsPerSecond;
    return {3 * product, product, product, 7 * product + 2.5 * core, core};
  }
  /// That come to a rank on one way in or out: a gathered matrix, or all but the own rows.
  double bytes(const Form& form, bool overlap) const {
    const std::int64_t rows = overlap ? inside(form) - form.rows : inside(form);
    return static_cast<double>(rows * form.hidden) * sizeof(double);
  }
  static constexpr int kWays = 5;  // in and out; in backward the gradient, x again, and out

  static constexpr int kSequence = 16;
  AllRanks all_{parallel()};
};

/// Each of the four works takes the longer of computing and its messages; without overlap both. The
/// last of them has two ways beside it, x again and the gradient on its way out.
TEST_F(OverlapTpInTime, ALayerTakesTheLongerOfComputingAndCommunication) {
  if (all_.world.size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  for (const Kind kind : {Kind::mlp, Kind::attention}) {
    const Form of = form(kind);
    const Works works = computing(of);
    const Seconds alone = run(of, false, kForever, kForever);
    EXPECT_NEAR(alone.all(), works.beside_messages() + works.core, 1e-6 * alone.all());
    const double window = 1.01 * alone.longest;
    for (const double ratio : {0.25, 1.0, 4.0}) {
      SCOPED_TRACE(testing::Message() << (kind == Kind::mlp ? "mlp" : "attention")
                                      << ", communication takes " << ratio << " of computing");
      const double way = ratio * works.beside_messages() / kWays;
      const double bandwidth = bytes(of, true) / way;

      const double apart = run(of, false, bandwidth, window).all();
      const double beside = run(of, true, bandwidth, window).all();

      EXPECT_NEAR(apart, alone.all() + kWays * bytes(of, false) / bandwidth, 0.1 * apart);
      const double longer = std::max(works.entering, way) + std::max(works.leaving, way) +
                            std::max(works.of_gradient, way) + std::max(works.others, 2 * way) +
                            works.core;
      EXPECT_NEAR(beside, longer, 0.1 * longer);
    }
  }
}

/// The last ways of backward at their longest: the sum waits for them behind all products.
TEST_F(OverlapTpInTime, AGradientLeavesBesideThoseOfWeights) {
  if (all_.world.size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  for (const Kind kind : {Kind::mlp, Kind::attention}) {
    SCOPED_TRACE(kind == Kind::mlp ? "mlp" : "attention");
    const Form of = form(kind);
    const Works works = computing(of);
    const double window = 1.01 * run(of, false, kForever, kForever).longest;
    const double way = works.others / 2;

    const double backward = run(of, true, bytes(of, true) / way, window).backward;

    const double longer = std::max(works.of_gradient, way) + works.others;
    EXPECT_NEAR(backward, longer, 0.1 * longer);
  }
}

/// Nothing moves by itself: it is the pauses behind products that let messages go on, here for as
/// long as the product of a piece.
TEST_F(OverlapTpInTime, NeedsThePausesBehindProducts) {
  if (all_.world.size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const Form of = form(Kind::mlp);
  const Works works = computing(of);
  const double pieces = static_cast<double>(inside(of)) / TensorParallel::kLeastRows;
  const double window = 1.01 * works.leaving / pieces;
  const double way = works.entering, bandwidth = bytes(of, true) / way;

  const double with = run(of, true, bandwidth, window).forward;
  const double without = run(of, true, bandwidth, window, /*polls=*/false).forward;

  EXPECT_NEAR(with, works.entering + way, 0.1 * with);
  EXPECT_GT(without, 1.2 * with);
}

}  // namespace
}  // namespace konclave
