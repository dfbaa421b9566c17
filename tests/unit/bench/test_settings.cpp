#include "base/error.hpp"
#include "bench/settings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// What is said of settings; "" when they are accepted.
std::string complaint(const std::vector<std::string>& benchmarks,
                      const std::vector<std::string>& overrides = {}) {
  BenchSettings settings;
  settings.benchmarks = benchmarks;
  settings.overrides = overrides;
  try {
    check_settings(settings);
    bench_deck(settings, 2);
  } catch (const DeckError& error) {
    return std::string("deck: ") + error.what();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::usage);
    return error.what();
  }
  return "";
}

TEST(BenchSettings, AreCheckedByName) {
  EXPECT_EQ(complaint(benchmark_names()), "");
  EXPECT_THAT(complaint({"gem"}), HasSubstr("did you mean \"gemm\"?"));
  EXPECT_THAT(complaint({"everything"}), HasSubstr("there are gemm, grouped-gemm"));
  EXPECT_THAT(complaint({"plan"}), HasSubstr("bench plan is not there yet"));
}

TEST(BenchSettings, TakeKeysOfTheDeck) {
  EXPECT_EQ(complaint({"step"}, {"model.hidden_size=64", "precision.compute=fp32"}), "");
  EXPECT_THAT(complaint({"step"}, {"model.hiden_size=64"}),
              AllOf(HasSubstr("deck: "), HasSubstr("model.hidden_size")));
  EXPECT_THAT(complaint({"step"}, {"run.steps=64"}),
              AllOf(HasSubstr("run.steps means nothing"), HasSubstr("model, moe")));
}

TEST(BenchSettings, KnowWhichKeysWereGiven) {
  BenchSettings settings;
  settings.overrides = {"moe.num_experts=4"};
  EXPECT_TRUE(settings.sets("moe.num_experts"));
  EXPECT_FALSE(settings.sets("moe.num"));
}

TEST(BenchDeck, SharesExpertsAndSequencesOut) {
  const Deck one = bench_deck({}, 1), many = bench_deck({}, 4);
  EXPECT_EQ(one.parallel.ep, 1);
  EXPECT_EQ(one.batch.global_size, 2);
  EXPECT_EQ(many.parallel.ep, 4);
  EXPECT_EQ(many.batch.global_size, 4);
  EXPECT_EQ(many.definition.model.hidden_size, 512);
}

}  // namespace
}  // namespace konclave
