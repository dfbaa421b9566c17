#include "moe/moe_layer.hpp"
#include "moe/sinkhorn.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace konclave {
namespace {

constexpr int kHidden = 5, kFfn = 3, kExperts = 4, kTopK = 2;
const int kColumns = MoeStatistics::columns(kExperts);

MoeLayerConfig config(std::vector<std::string> balancing, std::vector<double> coefficients) {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.top_k = kTopK;
  moe.ffn_hidden_size = kFfn;
  moe.balancing = std::move(balancing);
  moe.aux_loss_coefficients = std::move(coefficients);
  return {moe, kHidden, DType::fp64};
}

/// A layer with random parameters over sequences of six tokens, `per_window` in each window.
struct Layer : Workbench {
  Layer(const MoeLayerConfig& settings, int sequences, int per_window)
      : layer("moe", /*index=*/0, settings, Groups::alone(), storage()) {
    std::vector<int> windows, all;
    for (int q = 0; q <= sequences; ++q) {
      all.push_back(6 * q);
      if (q % per_window == 0) windows.push_back(6 * q);
    }
    step = moe_step(windows, 6 * per_window, /*layers=*/1, kExperts);
    step.windows.sequences = sequences;
    step.windows.sequence_offsets = tensors.integers(all);
    step.scale.per_sequence = 1.0 / sequences;
    // An uneven load, and the same for all.
    from_doubles(exec, {1.2, 0.1, 0.3, 0.4}, load);
    step.state.previous_load = load.as2<double>();
    layer.visit_parameters([&](Parameter& parameter) { set(parameter.grad(), 0); });
    randomised_leaves(exec, layer, 0.5);
    layer.prepare(exec, operations);
  }
  void forward(const AnyIn& x, const AnyView& y) {
    set(sums(), 0);
    layer.prepare(exec, operations);
    layer.forward(context(), step, x, /*residual=*/{}, saved, y);
  }
  AnyView sums() const { return {DType::fp64, step.statistics.sums.data(), {1, kColumns, 1}, 2}; }
  double statistic(int column) const {
    return to_doubles(exec, sums())[static_cast<std::size_t>(column)];
  }
  std::vector<double> losses() const {
    return {statistic(MoeStatistics::kAuxLoss), statistic(MoeStatistics::kSeqAuxLoss),
            statistic(MoeStatistics::kGlobalAuxLoss)};
  }

  MoeLayer layer;
  MoeStep step;
  MoeLayer::Saved saved;
  AnyView load = tensors.poisoned(DType::fp64, 1, kExperts);
};

TEST(Balancing, GradientsOfEveryLoss) {
  struct Kinds {
    std::vector<std::string> names;
    std::vector<double> coefficients;
  };
  for (const Kinds& kinds :
       {Kinds{{"aux_loss"}, {0.3}}, Kinds{{"seq_aux_loss"}, {0.4}},
        Kinds{{"global_aux_loss"}, {0.5}},
        Kinds{{"global_aux_loss", "seq_aux_loss", "aux_loss"}, {0.5, 0.4, 0.3}}}) {
    SCOPED_TRACE(kinds.names.front() + (kinds.names.size() > 1 ? " and others" : ""));
    Layer moe(config(kinds.names, kinds.coefficients), /*sequences=*/4, /*per_window=*/2);
    const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
    moe.expect_layer_gradients(
        moe.layer, x, [&](const AnyIn& in, const AnyView& y) { moe.forward(in, y); },
        [&](const AnyIn& dy, const AnyView& dx) {
          moe.layer.backward(moe.context(), moe.saved, dy, dx);
        },
        [&] {
          const std::vector<double> losses = moe.losses();
          return std::accumulate(losses.begin(), losses.end(), 0.0);
        });
    const std::vector<double> losses = moe.losses();
    EXPECT_EQ(std::count_if(losses.begin(), losses.end(), [](double loss) { return loss > 0; }),
              static_cast<std::ptrdiff_t>(kinds.names.size()));
  }
}

/// Each by itself is what it is beside the others, with its own coefficient.
TEST(Balancing, LossesAddUp) {
  const std::vector<std::string> kinds = {"global_aux_loss", "seq_aux_loss", "aux_loss"};
  const std::vector<double> coefficients = {0.5, 1, 2};
  Layer all(config(kinds, coefficients), 4, 2);
  const AnyView x = all.tensors.random("x", DType::fp64, 24, kHidden);
  const AnyView y = all.tensors.poisoned(DType::fp64, 24, kHidden);
  all.forward(x, y);
  std::vector<double> sum(3, 0);
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    Layer one(config({kinds[i]}, {coefficients[i]}), 4, 2);
    one.forward(x, y);
    for (std::size_t k = 0; k < 3; ++k) sum[k] += one.losses()[k];
  }
  EXPECT_TRUE(close(all.losses(), sum, tolerance(DType::fp64)));
  EXPECT_GT(*std::min_element(sum.begin(), sum.end()), 0.4);
}

/// Per sequence it does not matter how sequences make windows; per window it does.
TEST(Balancing, SequencesKnowNoWindows) {
  const auto losses = [](const char* kind, int per_window) {
    Layer moe(config({kind}, {1}), 4, per_window);
    const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
    moe.forward(x, moe.tensors.poisoned(DType::fp64, 24, kHidden));
    return moe.losses();
  };
  const double of_sequences = losses("seq_aux_loss", 1)[1];
  EXPECT_NEAR(losses("seq_aux_loss", 4)[1], of_sequences, 1e-14);
  EXPECT_NEAR(losses("aux_loss", 1)[0], of_sequences, 1e-14);
  EXPECT_GT(of_sequences - losses("aux_loss", 4)[0], 1e-3);
}

/// With the load of a step before that was even, it is the coefficient, whatever the scores.
TEST(Balancing, GlobalLossOfAnEvenLoadIsItsCoefficient) {
  Layer moe(config({"global_aux_loss"}, {0.7}), 4, 1);
  moe.set(moe.load, static_cast<double>(kTopK) / kExperts);
  const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
  moe.forward(x, moe.tensors.poisoned(DType::fp64, 24, kHidden));
  EXPECT_NEAR(moe.losses()[2], 0.7, 1e-14);
}

/// Loss and gradients by the counts of two micro-batches are those of a step before with the same
/// load.
TEST(Balancing, GlobalLossOfTheRunningLoad) {
  MoeLayerConfig running = config({"global_aux_loss"}, {0.7});
  running.moe.global_aux_counts = "running";
  Layer moe(running, 4, 1), before(config({"global_aux_loss"}, {0.7}), 4, 1);
  const AnyView counts = moe.tensors.poisoned(DType::fp64, 2, kExperts);
  const AnyView y = moe.tensors.poisoned(DType::fp64, 24, kHidden);
  std::vector<double> expected_load(kExperts, 0);
  moe.step.running = {counts.as2<double>(), /*layers=*/1};
  for (const int micro_batch : {0, 1}) {
    moe.step.running.micro_batch = micro_batch;
    const AnyView x = moe.tensors.random(micro_batch == 0 ? "x" : "x2", DType::fp64, 24, kHidden);
    moe.forward(x, y);
    std::vector<double> load = expected_load;
    for (int e = 0; e < kExperts; ++e) {
      double& count = expected_load[static_cast<std::size_t>(e)];
      count += moe.statistic(MoeStatistics::counted(kExperts, e));
      load[static_cast<std::size_t>(e)] = count / (24 * (micro_batch + 1));
    }
    from_doubles(before.exec, load, before.load);
    before.forward(x, y);
    EXPECT_NEAR(moe.losses()[2], before.losses()[2], 1e-14);
    EXPECT_GT(std::abs(moe.losses()[2] - 0.7), 1e-3) << "not by an even load";
    const auto gradient = [&](Layer& of) {
      const AnyView dx = of.tensors.poisoned(DType::fp64, 24, kHidden);
      of.layer.backward(of.context(), of.saved, x, dx);
      return to_doubles(of.exec, dx);
    };
    EXPECT_TRUE(close(gradient(moe), gradient(before), tolerance(DType::fp64)));
  }
}

TEST(Balancing, EvaluationHasNone) {
  Layer moe(config({"aux_loss"}, {1}), 4, 1);
  moe.step.training = false;
  const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
  moe.forward(x, moe.tensors.poisoned(DType::fp64, 24, kHidden));
  for (int column = 0; column < kColumns; ++column) EXPECT_EQ(moe.statistic(column), 0);
}

TEST(Balancing, StatisticsAreCountedOnceWhereForwardIsDoneAgain) {
  Layer moe(config({"aux_loss"}, {1}), 4, 1);
  const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
  const AnyView y = moe.tensors.poisoned(DType::fp64, 24, kHidden);
  moe.forward(x, y);
  const std::vector<double> once = to_doubles(moe.exec, moe.sums());
  moe.step.counts = false;
  moe.layer.forward(moe.context(), moe.step, x, /*residual=*/{}, moe.saved, y);
  EXPECT_EQ(to_doubles(moe.exec, moe.sums()), once);
  EXPECT_EQ(once[static_cast<std::size_t>(MoeStatistics::chosen(0))] +
                once[static_cast<std::size_t>(MoeStatistics::chosen(1))] +
                once[static_cast<std::size_t>(MoeStatistics::chosen(2))] +
                once[static_cast<std::size_t>(MoeStatistics::chosen(3))],
            24 * kTopK);
}

class Sinkhorn : public testing::Test, public Workbench {
 protected:
  AnyView plan(const AnyIn& logits, const std::vector<int>& offsets, int window_tokens) {
    return sinkhorn_plan(context(), *Groups::alone().tp_cp,
                         moe_step(offsets, window_tokens, 1, kExperts).windows, logits);
  }
};

/// Rows sum to 1/T, columns to 1/E, in each window; whatever is added to the logits of a row.
TEST_F(Sinkhorn, SpreadsTheTokensOfEachWindowEvenly) {
  for (const double shift : {0.0, 500.0, -500.0}) {
    const AnyView logits = tensors.random("logits", DType::fp64, 20, kExperts);
    std::vector<double> values = to_doubles(exec, logits);
    for (double& value : values) value = 3 * value + shift;
    from_doubles(exec, values, logits);
    const std::vector<double> found = to_doubles(exec, plan(logits, {0, 10, 20}, 10));
    for (std::size_t t = 0; t < 20; ++t) {
      const auto row = found.begin() + static_cast<std::ptrdiff_t>(t * kExperts);
      EXPECT_NEAR(std::accumulate(row, row + kExperts, 0.0), 0.1, 1e-6);
    }
    for (std::size_t w = 0; w < 2; ++w) {
      for (std::size_t e = 0; e < kExperts; ++e) {
        double sum = 0;
        for (std::size_t t = 0; t < 10; ++t) sum += found[(w * 10 + t) * kExperts + e];
        EXPECT_NEAR(sum, 1.0 / kExperts, 1e-3);
      }
    }
  }
}

/// A window that needs more rounds does not change what another one has.
TEST_F(Sinkhorn, WindowsDoNotDependOnEachOther) {
  const AnyView logits = tensors.random("logits", DType::fp64, 20, kExperts);
  std::vector<double> values = to_doubles(exec, logits);
  for (std::size_t i = 40; i < 80; ++i) values[i] *= 8;  // the second window is far from even
  from_doubles(exec, values, logits);
  const std::vector<double> both = to_doubles(exec, plan(logits, {0, 10, 20}, 10));
  const std::vector<double> first = to_doubles(exec, plan(logits.slice(0, 10), {0, 10}, 10));
  EXPECT_EQ(std::vector<double>(both.begin(), both.begin() + 40), first);
}

/// In training the plan chooses and the softmax of all experts weighs; in evaluation both are the
/// softmax', which sends every token to the first expert here.
TEST_F(Sinkhorn, ChoosesInTrainingAlone) {
  MoeLayerConfig settings = config({"sinkhorn"}, {});
  Layer moe(settings, 4, 4);
  const AnyView x = moe.tensors.random("x", DType::fp64, 24, kHidden);
  std::vector<double> values = to_doubles(moe.exec, x);
  for (std::size_t i = 0; i < values.size(); i += kHidden) values[i] = 1;
  from_doubles(moe.exec, values, x);
  moe.layer.visit_parameters([&](Parameter& parameter) {
    if (parameter.name() != "moe.router.weight") return;
    std::vector<double> weight = to_doubles(moe.exec, parameter.value());
    weight[0] = 6;
    from_doubles(moe.exec, weight, parameter.value());
  });
  const AnyView y = moe.tensors.poisoned(DType::fp64, 24, kHidden);
  const auto tokens_of_the_first = [&] {
    moe.forward(x, y);
    const std::vector<int> chosen = to_host(moe.exec, moe.saved.routing.expert_ids);
    return std::count(chosen.begin(), chosen.end(), 0);
  };
  EXPECT_LT(tokens_of_the_first(), 20);
  moe.step.training = false;
  EXPECT_EQ(tokens_of_the_first(), 24);
  moe.step.training = true;
  moe.expect_layer_gradients(
      moe.layer, x, [&](const AnyIn& in, const AnyView& out) { moe.forward(in, out); },
      [&](const AnyIn& dy, const AnyView& dx) {
        moe.layer.backward(moe.context(), moe.saved, dy, dx);
      },
      [] { return 0.0; });
}

}  // namespace
}  // namespace konclave
