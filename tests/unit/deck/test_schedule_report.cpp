#include "deck/schedule_report.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace konclave {
namespace {

std::string report(const PipelineShape& shape, int num_layers) {
  ParallelConfig parallel;
  parallel.pp = shape.stages;
  parallel.vpp = shape.chunks;
  return schedule_report(shape, make_pipeline_layout(parallel, num_layers));
}

void expect_says(const std::string& text, const std::string& part) {
  EXPECT_TRUE(text.find(part) != text.npos) << part << "is not in:\n" << text;
}

TEST(ScheduleReport, Of1F1B) {
  EXPECT_EQ(report({3, 1, 4}, 3),
            "# What each pipeline stage has, and how many slots of activations it holds\n"
            "#    stage  slots  part\n"
            "#        0      3  embedding, layer 0\n"
            "#        1      2  layer 1\n"
            "#        2      1  layer 2, head\n"
            "\n"
            "# What each stage does when: F0 is forward of micro-batch 0, B backward\n"
            "#     slot  0  1  2  3  4  5  6  7  8  9  10 11\n"
            "#        0  F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3\n"
            "#        1  .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .\n"
            "#        2  .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .\n"
            "#   bubble: 4 of 12 slots of a stage are idle, 33.3%\n");
}

TEST(ScheduleReport, OfChunks) {
  EXPECT_EQ(report({2, 2, 2}, 8),
            "# What each pipeline stage has, and how many slots of activations it holds\n"
            "#    stage  slots  chunks, by |\n"
            "#        0      4  embedding, layers 0-1 | layers 4-5\n"
            "#        1      3  layers 2-3 | layers 6-7, head\n"
            "\n"
            "# What each stage does when: F0.0 is forward of micro-batch 0 through chunk 0, B "
            "backward\n"
            "#     slot  0    1    2    3    4    5    6    7    8    9\n"
            "#        0  F0.0 F1.0 F0.1 F1.1 .    B0.1 .    B1.1 B0.0 B1.0\n"
            "#        1  .    F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 B0.0 B1.0 .\n"
            "#   bubble: 2 of 10 slots of a stage are idle, 20.0%\n");
}

TEST(ScheduleReport, SaysWhatIsEmpty) {
  ParallelConfig parallel;
  parallel.pp = 4;
  parallel.layout = "E||tt|L";
  const std::string text = schedule_report({4, 1, 2}, make_pipeline_layout(parallel, 2));
  expect_says(text,
              "#        0      2  embedding\n#        1      2  nothing\n"
              "#        2      2  layers 0-1\n#        3      1  head\n");
}

TEST(ScheduleReport, OfOneStageHasNoBubble) {
  const std::string text = report({1, 1, 3}, 2);
  expect_says(text, "#        0      1  embedding, layers 0-1, head\n");
  expect_says(text, "#        0  F0 B0 F1 B1 F2 B2\n");
  expect_says(text, "0 of 6 slots of a stage are idle, 0.0%\n");
}

/// (PP - 1) / (M V + PP - 1) of the time, where forward and backward take equally long.
TEST(ScheduleReport, BubbleShrinksWithChunks) {
  expect_says(report({4, 1, 8}, 16), "6 of 22 slots of a stage are idle, 27.3%\n");
  expect_says(report({4, 4, 8}, 16), "6 of 70 slots of a stage are idle, 8.6%\n");
}

TEST(ScheduleReport, SumsUpManySlots) {
  const std::string text = report({2, 1, 30}, 2);
  expect_says(text, "#   ... 22 more slots\n#   bubble: 2 of 62 slots");
  expect_says(text, " 38  39\n");
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LT(line.size(), 200U) << line;
  expect_says(report({2, 1, 20}, 2), "#   bubble: 2 of 42 slots");
  expect_says(report({1, 1, 20}, 2), " F19 B19\n#   bubble");
}

TEST(ScheduleReport, LeavesOutTheMiddleOfManyStages) {
  const auto lines = [](int stages) {
    const std::string text = report({stages, 1, 1}, stages);
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines(32), 2 + 32 + 2 + 1 + 32 + 2) << "more slots than are shown, too";
  EXPECT_EQ(lines(33), 2 + 33 + 2 + 1 + 33 + 2);
  const std::string text = report({40, 1, 1}, 40);
  expect_says(text, "layer 15\n#      ...  8 more\n#       24      1  layer 24\n");
}

TEST(ScheduleReport, LayoutAndScheduleMustAgree) {
  ParallelConfig parallel;
  parallel.pp = 2;
  const PipelineLayout layout = make_pipeline_layout(parallel, 4);
  expect_error([&] { schedule_report({4, 1, 4}, layout); }, ExitCode::internal, {"other stages"});
  expect_error([&] { schedule_report({2, 2, 4}, layout); }, ExitCode::internal, {"or chunks"});
}

}  // namespace
}  // namespace konclave
