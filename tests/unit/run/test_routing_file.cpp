#include "base/file.hpp"
#include "run/report_routing.hpp"
#include "run/routing_file.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace konclave {
namespace {

constexpr std::int64_t kExperts = 3;

/// Different for each step, layer, expert and quantity.
std::vector<LayerMetrics> layers_at(std::int64_t step, std::size_t layers = 2) {
  std::vector<LayerMetrics> all;
  for (std::size_t number = 0; number < layers; ++number) {
    const auto base = static_cast<double>(100 * step + 10 * static_cast<std::int64_t>(number));
    LayerMetrics layer;
    layer.chosen = {base + 1, base + 2, base + 3};
    layer.kept = {base, base + 1, base + 2};
    layer.entropy = base + 0.125;
    layer.aux_loss = base + 0.25;
    layer.seq_aux_loss = base + 0.375;
    layer.global_aux_loss = base + 0.5;
    layer.z_loss = base + 0.625;
    all.push_back(layer);
  }
  return all;
}

class Routing : public testing::Test {
 protected:
  RoutingFile file(std::int64_t step) const {
    RoutingFile made(path_, {1, 3}, kExperts);
    EXPECT_EQ(made.open(step), "");
    return made;
  }
  /// Steps `first` to `last`, in batches of `batch`.
  static void write(RoutingFile& file, std::int64_t first, std::int64_t last, std::int64_t batch) {
    for (std::int64_t step = first; step <= last; ++step) {
      file.add(step, layers_at(step));
      if ((step - first + 1) % batch == 0) file.flush();
    }
    file.flush();
  }
  void expect_steps(std::int64_t last) const {
    const RoutingHistory found = read_routing(path_, 0, last);
    RoutingHistory expected;
    expected.layer = {1, 3};
    expected.experts = kExperts;
    for (std::int64_t step = 1; step <= last; ++step) expected.add(step, layers_at(step));
    EXPECT_EQ(read_routing_steps(path_).step, expected.step);
    EXPECT_EQ(found.layer, expected.layer);
    EXPECT_EQ(found.experts, kExperts);
    EXPECT_EQ(found.chosen, expected.chosen);
    EXPECT_EQ(found.kept, expected.kept);
    EXPECT_EQ(found.entropy, expected.entropy);
    EXPECT_EQ(found.aux_loss, expected.aux_loss);
    EXPECT_EQ(found.seq_aux_loss, expected.seq_aux_loss);
    EXPECT_EQ(found.global_aux_loss, expected.global_aux_loss);
    EXPECT_EQ(found.z_loss, expected.z_loss);
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path("routing.h5");
};

TEST_F(Routing, IsReadAsItWasWritten) {
  RoutingFile one = file(0);
  EXPECT_EQ(read_routing_steps(path_).steps(), 0);
  write(one, 1, 7, 3);
  expect_steps(7);
  const RoutingHistory part = read_routing(path_, 2, 3);
  EXPECT_EQ(part.chosen.front(), 301);
  EXPECT_EQ(part.z_loss.back(), 510.625);
}

TEST_F(Routing, LongOnesAreWhole) {
  RoutingFile one = file(0);
  write(one, 1, 5000, 700);  // chunks of 1024 steps and of less
  expect_steps(5000);
}

TEST_F(Routing, IsWholeBetweenFlushes) {
  RoutingFile one = file(0);
  write(one, 1, 4, 2);
  one.add(5, layers_at(5));
  EXPECT_EQ(one.pending().steps(), 1);
  expect_steps(4);
  folder_.write("routing.h5.new", "left by a process that was killed");
  one.flush();
  EXPECT_EQ(read_routing_steps(path_).steps(), 5);
  EXPECT_FALSE(std::filesystem::exists(path_ + ".new"));
}

TEST_F(Routing, AResumeCutsWhatIsLater) {
  {
    RoutingFile one = file(0);
    write(one, 1, 9, 4);
  }
  RoutingFile again = file(5);
  expect_steps(5);
  write(again, 6, 8, 2);
  expect_steps(8);
  EXPECT_EQ(read_routing_steps(path_).steps(), 8);
  file(0);
  EXPECT_EQ(read_routing_steps(path_).steps(), 0) << "a run from the start has none";
}

TEST_F(Routing, WhatIsDamagedOrOfAnotherModelIsSetAside) {
  folder_.write("routing.h5", "no HDF5");
  RoutingFile one(path_, {1, 3}, kExperts);
  EXPECT_NE(one.open(4).find("starts anew"), std::string::npos);
  EXPECT_EQ(read_text(path_ + ".damaged"), "no HDF5");
  write(one, 5, 5, 1);
  RoutingFile other(path_, {1, 2}, kExperts);
  EXPECT_NE(other.open(5).find("not those of this model"), std::string::npos);
  EXPECT_EQ(read_routing_steps(path_).layer, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(read_routing_steps(path_ + ".damaged").step, std::vector<std::int64_t>{5});
}

TEST_F(Routing, AFailureLosesNothing) {
  RoutingFile one = file(0);
  write(one, 1, 3, 3);
  std::filesystem::rename(path_, path_ + ".away");
  one.add(4, layers_at(4));
  expect_error([&] { one.flush(); }, ExitCode::io, {path_});
  std::filesystem::rename(path_ + ".away", path_);
  one.add(5, layers_at(5));
  one.flush();
  expect_steps(5);
}

TEST_F(Routing, LargeOnesGrowInPlace) {
  const std::int64_t experts = 1024;
  RoutingFile one(path_, {0, 1, 2, 3}, experts);
  one.open(0);
  // Noise, which compression leaves large.
  std::vector<LayerMetrics> layers(4);
  double number = 1;
  std::int64_t step = 0;
  const auto write = [&] {
    for (LayerMetrics& layer : layers) {
      layer.chosen.resize(experts);
      for (double& count : layer.chosen) {
        number = std::fmod(number * 69069 + 1, 4294967296.0);
        count = std::floor(number / 16);
      }
      layer.kept = layer.chosen;
    }
    one.add(++step, layers);
  };
  const std::int64_t in_place = 33 << 20;
  while (!std::filesystem::exists(path_) ||
         std::filesystem::file_size(path_) < static_cast<std::uintmax_t>(in_place)) {
    for (int more = 0; more < 200; ++more) write();
    one.flush();
  }
  const std::filesystem::path link = folder_.path("the same file");
  std::filesystem::create_hard_link(path_, link);
  write();
  one.flush();
  EXPECT_EQ(read_routing(link, step - 1, 1).chosen.back(),
            static_cast<std::int64_t>(layers[3].chosen.back()));
  one.open(3);
  EXPECT_EQ(read_routing_steps(link).steps(), 3);
}

TEST_F(Routing, NeedsAFolder) {
  RoutingFile one(folder_.path("none/routing.h5"), {0}, kExperts);
  expect_error([&] { one.open(0); }, ExitCode::io, {"none/routing.h5"});
  expect_error([&] { read_routing_steps(path_); }, ExitCode::input, {path_});
}

TEST_F(Routing, CountsOfNoNumberAreNone) {
  RoutingFile one = file(0);
  std::vector<LayerMetrics> layers = layers_at(1);
  layers[0].chosen[1] = std::numeric_limits<double>::quiet_NaN();
  one.add(1, layers);
  one.flush();
  EXPECT_EQ(read_routing(path_, 0, 1).chosen[1], 0);
}

TEST_F(Routing, ReportHasMeansOfStretches) {
  RoutingFile one = file(0);
  EXPECT_TRUE(report_routing(path_).is_null());
  write(one, 1, 500, 500);
  const nlohmann::json report = report_routing(path_);
  EXPECT_EQ(report.at("layers"), nlohmann::json({1, 3}));
  ASSERT_EQ(report.at("columns").size(), 167);  // of 3 steps each
  EXPECT_EQ(report["columns"][1], nlohmann::json({4, 6, 3}));
  EXPECT_EQ(report["columns"][166], nlohmann::json({499, 500, 2}));
  // Steps 4 to 6 of the second layer: mean chosen 511, 512, 513.
  EXPECT_EQ(report["load"][1][1].size(), 3);
  EXPECT_NEAR(report["load"][1][1][0].get<double>(), 511.0 / 512, 5e-5);
  EXPECT_NEAR(report["dropped"][1][1].get<double>(), 1.0 / 512, 5e-5);
  EXPECT_NEAR(report["entropy"][1][1].get<double>(), 510.125, 5e-5);
  const double imbalance = (413.0 / 412 + 513.0 / 512 + 613.0 / 612) / 3;
  EXPECT_NEAR(report["imbalance"][1][1].get<double>(), imbalance, 5e-5);
  EXPECT_EQ(report["final_steps"], nlohmann::json({451, 500}));
  const double mean = 100 * 475.5 + 2;  // of steps 451 to 500, first layer
  EXPECT_NEAR(report["final"][0][2].get<double>(), (mean + 1) / mean, 5e-5);
}

}  // namespace
}  // namespace konclave
