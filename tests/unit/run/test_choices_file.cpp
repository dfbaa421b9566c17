#include "run/choices_file.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

constexpr ChoicesShape kShape{/*sequence_length=*/5, /*layers=*/2, /*top_k=*/3, /*experts=*/300};

/// Three different experts for each token and layer, others from one row to the next.
std::vector<std::uint16_t> samples(std::int64_t first, std::int64_t count) {
  std::vector<std::uint16_t> choices;
  const std::int64_t rows = kShape.sequence_length * kShape.layers;
  for (std::int64_t row = first * rows; row < (first + count) * rows; ++row) {
    for (std::int64_t k = 0; k < kShape.top_k; ++k) {
      choices.push_back(static_cast<std::uint16_t>((7 * row + 100 * k) % kShape.experts));
    }
  }
  return choices;
}

class Choices : public testing::Test {
 protected:
  /// Has samples 0 .. count-1, written in batches of two.
  void record(std::int64_t count) const {
    ChoicesFile file(path_, kShape);
    file.open(0);
    for (std::int64_t sample = 0; sample < count; ++sample) {
      file.add(samples(sample, 1));
      if (sample % 2 == 1) file.flush();
    }
    file.flush();
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path("routing_choices.h5");
};

TEST_F(Choices, AreReadAsTheyWereWritten) {
  record(0);
  EXPECT_EQ(count_samples(path_, kShape), 0);
  record(7);
  EXPECT_EQ(count_samples(path_, kShape), 7);
  EXPECT_EQ(read_choices(path_, kShape, 0, 7), samples(0, 7));
  EXPECT_EQ(read_choices(path_, kShape, 3, 2), samples(3, 2));
}

TEST_F(Choices, AResumeCutsWhatIsLater) {
  record(7);
  ChoicesFile again(path_, kShape);
  again.open(4);
  EXPECT_EQ(count_samples(path_, kShape), 4);
  again.add(samples(4, 2));
  EXPECT_EQ(again.pending_bytes(), static_cast<std::int64_t>(2 * samples(4, 2).size()));
  again.flush();
  EXPECT_EQ(again.pending_bytes(), 0);
  EXPECT_EQ(read_choices(path_, kShape, 0, 6), samples(0, 6));
  expect_error([&] { again.open(7); }, ExitCode::input, {path_, "6 sequences", "behind 7"});
}

TEST_F(Choices, OfAnotherModelAreRefused) {
  record(2);
  for (auto [field, name] : {std::pair{&ChoicesShape::experts, "num_experts = 300"},
                             {&ChoicesShape::top_k, "top_k = 3"},
                             {&ChoicesShape::sequence_length, "sequence_length = 5"},
                             {&ChoicesShape::layers, "2 MoE layers"}}) {
    ChoicesShape other = kShape;
    ++(other.*field);
    expect_error([&] { count_samples(path_, other); }, ExitCode::deck, {path_, name});
  }
}

TEST_F(Choices, HaveToBeDifferentExpertsOfTheModel) {
  for (const int wrong : {300, 107}) {
    ChoicesFile file(path_, kShape);
    file.open(0);
    std::vector<std::uint16_t> choices = samples(0, 2);
    choices[33] = static_cast<std::uint16_t>(wrong);  // beside 177 and 277 - or is no expert
    choices[34] = 107;
    file.add(choices);
    file.flush();
    expect_error([&] { read_choices(path_, kShape, 0, 2); }, ExitCode::input,
                 {path_, "sequence 1", "3 different ones of 300"});
    EXPECT_EQ(read_choices(path_, kShape, 0, 1), samples(0, 1));
  }
}

TEST_F(Choices, NeedAFileOfTheirKind) {
  expect_error([&] { count_samples(path_, kShape); }, ExitCode::input, {path_, "No such file"});
  folder_.write("routing_choices.h5", "no HDF5");
  expect_error([&] { count_samples(path_, kShape); }, ExitCode::input, {path_});
  ChoicesFile nowhere(folder_.path("none/choices.h5"), kShape);
  expect_error([&] { nowhere.open(0); }, ExitCode::io, {"none/choices.h5"});
}

TEST_F(Choices, AFailureLosesNothing) {
  record(2);
  ChoicesFile file(path_, kShape);
  file.open(2);
  file.add(samples(2, 1));
  std::filesystem::rename(path_, path_ + ".away");
  expect_error([&] { file.flush(); }, ExitCode::io, {path_});
  std::filesystem::rename(path_ + ".away", path_);
  file.add(samples(3, 1));
  file.flush();
  EXPECT_EQ(read_choices(path_, kShape, 0, 4), samples(0, 4));
}

}  // namespace
}  // namespace konclave
