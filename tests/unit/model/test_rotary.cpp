#include "layers/rotary.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <numbers>

namespace konclave {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

std::vector<double> plain_frequencies(int head_dim, double theta) {
  std::vector<double> result;
  for (int i = 0; i < head_dim; i += 2) {
    result.push_back(1 / std::pow(theta, static_cast<double>(i) / head_dim));
  }
  return result;
}

RopeScaling scaling(const std::string& type, double factor, double old_length = 0) {
  RopeScaling result;
  result.type = type;
  result.factor = factor;
  result.original_max_position_embeddings = old_length;
  return result;
}

void expect_frequencies(const RotaryFrequencies& actual, const std::vector<double>& expected,
                        double attention_factor = 1) {
  ASSERT_EQ(actual.inverse.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual.inverse[i] / expected[i], 1, 1e-13) << "pair " << i;
  }
  EXPECT_NEAR(actual.attention_factor, attention_factor, 1e-14);
}

TEST(RotaryFrequencies, AreByHandWithoutScaling) {
  expect_frequencies(rotary_frequencies(8, 10000, {}), {1, 0.1, 0.01, 0.001});
}

TEST(RotaryFrequencies, LinearDividesAll) {
  expect_frequencies(rotary_frequencies(8, 10000, scaling("linear", 4)),
                     {0.25, 0.025, 0.0025, 0.00025});
}

/// The sizes of Llama 3.1: by wavelength, as the definition has it.
TEST(RotaryFrequencies, Llama3KeepsShortWavesAndStretchesLongOnes) {
  RopeScaling llama = scaling("llama3", 8, 8192);
  llama.low_freq_factor = 1;
  llama.high_freq_factor = 4;
  std::vector<double> expected = plain_frequencies(128, 500000);
  int kept = 0, stretched = 0;
  for (double& frequency : expected) {
    const double wavelength = kTurn / frequency;
    if (wavelength < 8192.0 / 4) {
      ++kept;
    } else if (wavelength > 8192.0 / 1) {
      ++stretched;
      frequency /= 8;
    } else {
      const double smooth = (8192 / wavelength - 1) / (4 - 1);
      frequency = (1 - smooth) * frequency / 8 + smooth * frequency;
    }
  }
  EXPECT_EQ(kept, 29);
  EXPECT_EQ(stretched, 29);
  expect_frequencies(rotary_frequencies(128, 500000, llama), expected);
}

/// The sizes of Qwen 2.5. 32 and 1 turns over the old length of 32768 are made by the pairs 23.596
/// and 39.651, so the ramp goes from pair 23 to 40.
TEST(RotaryFrequencies, YarnRampsBetweenTheTwoNumbersOfTurns) {
  std::vector<double> expected = plain_frequencies(128, 1e6);
  for (std::size_t i = 24; i < 64; ++i) {
    const double ramp = i >= 40 ? 1 : (static_cast<double>(i) - 23) / 17;
    expected[i] = expected[i] / 4 * ramp + expected[i] * (1 - ramp);
  }
  RopeScaling yarn = scaling("yarn", 4, 32768);
  expect_frequencies(rotary_frequencies(128, 1e6, yarn), expected, 1 + 0.1 * std::log(4.0));
  yarn.attention_factor = 0.7;
  expect_frequencies(rotary_frequencies(128, 1e6, yarn), expected, 0.7);
}

/// Pairs of 8 and 2 turns: 4 ln(L / (8 2 pi)) / ln(1e4) and so on.
TEST(RotaryFrequencies, YarnTakesItsOwnTurnsAndStaysInRange) {
  RopeScaling yarn = scaling("yarn", 10, 1000);
  yarn.beta_fast = 8;
  yarn.beta_slow = 2;  // pairs 1.299 and 1.901 of 4: the ramp goes from 1 to 2
  expect_frequencies(rotary_frequencies(8, 10000, yarn), {1, 0.1, 0.001, 0.0001},
                     1 + 0.1 * std::log(10.0));
  yarn.beta_fast = 1e6;   // a negative pair: the ramp starts at 0
  yarn.beta_slow = 1e-9;  // a pair behind the last one: it ends at 2 * 4 - 1
  const auto stretched = [](int i) { return std::pow(10, -i) * (i / 7.0 / 10 + 1 - i / 7.0); };
  expect_frequencies(rotary_frequencies(8, 10000, yarn),
                     {stretched(0), stretched(1), stretched(2), stretched(3)},
                     1 + 0.1 * std::log(10.0));
}

/// Both ends at pair 0, the upper one as -0.5 rounded up: a step instead of a ramp.
TEST(RotaryFrequencies, YarnStepsWhereItsRampHasNoLength) {
  RopeScaling yarn = scaling("yarn", 10, 1000);
  yarn.beta_fast = 1e6;
  yarn.beta_slow = 500 * std::sqrt(10.0) / std::numbers::pi;
  expect_frequencies(rotary_frequencies(8, 10000, yarn), {1, 0.01, 0.001, 0.0001},
                     1 + 0.1 * std::log(10.0));
}

TEST(RotaryFrequencies, YarnWithAFactorOfOneLeavesCosAndSinAlone) {
  expect_frequencies(rotary_frequencies(8, 10000, scaling("yarn", 1, 1000)), {1, 0.1, 0.01, 0.001});
}

TEST(RotaryFrequencies, RefuseAnUnknownScaling) {
  expect_error([] { rotary_frequencies(8, 10000, scaling("ntk", 2)); }, ExitCode::internal,
               {"ntk"});
}

/// A pair (1, 0) becomes the factor times (cos, sin) of position times frequency.
TEST(Rotary, TurnsByThePositionOfTheRow) {
  constexpr int kTokens = 4;
  Workbench bench;
  RotaryFrequencies frequencies{{1, 0.3}, 1.5};
  const Rotary rotary(bench.exec, frequencies, 12, DType::fp64, bench.weights);
  const Sequences sequences = bench.sequences({3, 1}, /*first=*/7);
  const AnyView x = bench.tensors.values(
      DType::fp64, {1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0}, kTokens, 4);
  rotary.apply(bench.context(), sequences, /*inverse=*/false, x, {});
  std::vector<double> expected;
  for (const int position : {7, 8, 9, 9}) {
    for (const double angle : {1.0 * position, 0.3 * position})
      expected.push_back(1.5 * std::cos(angle));
    for (const double angle : {1.0 * position, 0.3 * position})
      expected.push_back(1.5 * std::sin(angle));
  }
  EXPECT_TRUE(close(to_doubles(bench.exec, x), expected, tolerance(DType::fp64)));
}

}  // namespace
}  // namespace konclave
