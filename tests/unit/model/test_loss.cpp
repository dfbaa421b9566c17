#include "model/loss.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <memory>

namespace konclave {
namespace {

constexpr double kScale = 0.25;

/// Rows, hidden size and vocabulary. The first is cut into blocks of 1024 rows, the second, by its
/// vocabulary, into blocks of 128 rows, and its vocabulary and the last one into blocks of 1024
/// columns, the last of them smaller.
struct Extents {
  int tokens, hidden, vocabulary;
};
constexpr Extents kExtents[] = {{2100, 3, 11}, {130, 2, 65'537}, {1, 4, 7},
                                {0, 4, 7},     {5, 3, 1024},     {9, 3, 2050}};

/// Everything that loss_heads computes.
struct Results {
  std::vector<double> losses, d_hidden, d_weight;
};

Results plain(const Extents& size, const std::vector<double>& hidden,
              const std::vector<double>& weight, const std::vector<int>& labels) {
  const auto width = static_cast<std::size_t>(size.hidden);
  Results out{{}, std::vector<double>(hidden.size()), std::vector<double>(weight.size())};
  for (std::size_t t = 0; t < labels.size(); ++t) {
    std::vector<double> share(static_cast<std::size_t>(size.vocabulary));
    double sum = 0;
    for (std::size_t v = 0; v < share.size(); ++v) {
      double logit = 0;
      for (std::size_t h = 0; h < width; ++h)
        logit += hidden[t * width + h] * weight[v * width + h];
      sum += share[v] = std::exp(logit);
    }
    if (labels[t] < 0) {
      out.losses.push_back(0);
      continue;
    }
    const auto label = static_cast<std::size_t>(labels[t]);
    out.losses.push_back(std::log(sum) - std::log(share[label]));
    for (std::size_t v = 0; v < share.size(); ++v) {
      const double slope = kScale * (share[v] / sum - (v == label ? 1 : 0));
      for (std::size_t h = 0; h < width; ++h) {
        out.d_hidden[t * width + h] += slope * weight[v * width + h];
        out.d_weight[v * width + h] += slope * hidden[t * width + h];
      }
    }
  }
  return out;
}

class LossHeads : public testing::Test {
 protected:
  struct Problem {
    std::unique_ptr<Parameter> weight;
    AnyView hidden, d_hidden;
    std::vector<int> labels;
    View1<double> losses;
  };

  Problem problem(DType type, const Extents& size) {
    Problem p;
    p.weight = std::make_unique<Parameter>(
        ParameterSpec{"head.weight", {size.vocabulary, size.hidden}, type, 1.0}, bench_.storage());
    p.weight->initialise(bench_.exec, 3);
    bench_.set(p.weight->grad(), 0);
    p.weight->prepare(bench_.exec, bench_.operations, 0);
    p.hidden = bench_.tensors.random("hidden", type, size.tokens, size.hidden);
    p.d_hidden = bench_.tensors.poisoned(type, size.tokens, size.hidden);
    p.losses = bench_.tensors.poisoned(DType::fp64, size.tokens).as1<double>();
    for (int t = 0; t < size.tokens; ++t) {
      p.labels.push_back(t % 5 == 3 ? -1 : (t * 7) % size.vocabulary);
    }
    return p;
  }
  /// A head for `count` rows from `first` on.
  LossHead head(const Problem& p, std::int64_t first, std::int64_t count) {
    const auto begin = p.labels.begin() + first;
    return {p.weight.get(),
            p.hidden.slice(first, count),
            bench_.tensors.integers({begin, begin + count}),
            kScale,
            View1<double>(p.losses.data() + first, static_cast<std::size_t>(count)),
            p.d_hidden.slice(first, count)};
  }
  void run(const std::vector<LossHead>& heads) { loss_heads(bench_.context(), tp_, heads); }
  Results results(const Problem& p) const {
    return {to_host(bench_.exec, p.losses), to_doubles(bench_.exec, p.d_hidden),
            to_doubles(bench_.exec, p.weight->grad())};
  }
  static void expect_close(const Results& actual, const Results& expected, DType type) {
    EXPECT_TRUE(close(actual.losses, expected.losses, tolerance(accum_type(type)), 1)) << "losses";
    EXPECT_TRUE(close(actual.d_hidden, expected.d_hidden, tolerance(type))) << "d_hidden";
    EXPECT_TRUE(close(actual.d_weight, expected.d_weight, tolerance(type))) << "gradient of W";
  }

  Workbench bench_;
  TensorParallel tp_{Groups::alone()};
};

TEST_F(LossHeads, AgreeWithPlainLoopWhateverTheBlocks) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    for (const Extents& size : kExtents) {
      SCOPED_TRACE(testing::Message()
                   << name_of(type) << ", T = " << size.tokens << ", V = " << size.vocabulary);
      const Problem p = problem(type, size);
      run({head(p, 0, size.tokens)});
      expect_close(results(p),
                   plain(size, to_doubles(bench_.exec, p.hidden),
                         to_doubles(bench_.exec, p.weight->value()), p.labels),
                   type);
    }
  }
}

TEST_F(LossHeads, SeveralHeadsAddToOneWeight) {
  const Problem whole = problem(DType::fp64, kExtents[0]),
                parts = problem(DType::fp64, kExtents[0]);
  run({head(whole, 0, 2100)});
  run({head(parts, 0, 700), head(parts, 700, 1), head(parts, 701, 1399)});
  expect_close(results(parts), results(whole), DType::fp64);
}

TEST_F(LossHeads, WithoutGradientsOnlyLossesAreWritten) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const Problem p = problem(type, kExtents[0]);
    run({head(p, 0, 2100)});
    const Results before = results(p);
    LossHead alone = head(p, 0, 2100);
    alone.d_hidden = {};
    Kokkos::deep_copy(bench_.exec, p.losses, -1.0);
    run({alone});
    EXPECT_EQ(results(p).losses, before.losses);
    EXPECT_EQ(results(p).d_weight, before.d_weight) << "the weight's gradient has changed";
  }
}

}  // namespace
}  // namespace konclave
