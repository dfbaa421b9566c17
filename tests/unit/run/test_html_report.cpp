#include "base/file.hpp"
#include "run/curve.hpp"
#include "run/html_report.hpp"
#include "run/report_data.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace konclave {
namespace {

Curve curve_of(std::int64_t points) {
  Curve curve;
  for (std::int64_t at = 1; at <= points; ++at) curve.add(at, 10 + static_cast<double>(at % 7));
  return curve;
}

TEST(Curves, ShortOnesStay) {
  const Curve curve = curve_of(20);
  EXPECT_EQ(thinned(curve, 20).value, curve.value);
  EXPECT_EQ(thinned(Curve(), 20).size(), 0);
}

TEST(Curves, LongOnesKeepTheirExtremes) {
  for (const std::int64_t points : {101, 1000, 12345}) {
    Curve curve = curve_of(points);
    curve.value[57] = 1000;
    curve.value[91] = -1000;
    const Curve thin = thinned(curve, 100);
    EXPECT_LE(thin.size(), 100) << points;
    EXPECT_GE(thin.size(), 50) << points;
    EXPECT_EQ(thin.step.front(), 1);
    EXPECT_EQ(thin.step.back(), points);
    EXPECT_TRUE(std::is_sorted(thin.step.begin(), thin.step.end()));
    EXPECT_EQ(std::adjacent_find(thin.step.begin(), thin.step.end()), thin.step.end());
    for (std::size_t at = 0; at < thin.size(); ++at) {
      EXPECT_EQ(thin.value[at], curve.value[static_cast<std::size_t>(thin.step[at] - 1)]);
    }
    EXPECT_THAT(thin.value, testing::AllOf(testing::Contains(1000), testing::Contains(-1000)));
  }
}

TEST(HtmlPage, TextsCannotEndTheirElement) {
  const std::string page = html_page("a <b> & c", R"json({"x": "</script><script>alert(1)"})json");
  EXPECT_NE(page.find("<title>a &lt;b> &amp; c</title>"), std::string::npos);
  EXPECT_NE(page.find(R"json({"x": "\u003c/script>\u003cscript>alert(1)"})json"),
            std::string::npos);
}

TEST(HtmlPage, NeedsNoOther) {
  const std::string page = html_page("run", "{}");
  for (const char* outside : {"src=", "href=", "url(", "@import", "fetch(", "https:"}) {
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  }
}

constexpr const char* kDeck =
    "[run]\nname = \"small\"\nsteps = 4\n[model]\nvocab_size = 256\nsequence_length = 32\n"
    "hidden_size = 64\nnum_layers = 2\nnum_heads = 4\nffn_hidden_size = 32\n";

TEST(ReportData, HasWhatThereIsOfADenseRun) {
  const TemporaryFolder folder;
  folder.write("run/deck.toml", kDeck);
  folder.write("run/metrics.jsonl",
               "{\"step\": 1, \"tokens\": 9, \"loss\": 3.5, \"grad_norm\": 1, \"mfu\": null}\n"
               "{\"step\": 2, \"tokens\": 18, \"loss\": null, \"grad_norm\": null}\n"
               "{\"step\": 3, \"tokens\": 27, \"loss\": 2.5, \"grad_norm\": 2, \"val_loss\": 3}\n"
               "{\"step\": 4, \"tok");
  const nlohmann::json data = report_data(folder.path("run"));
  EXPECT_EQ(data.at("steps"), 3);
  EXPECT_EQ(data.at("wanted_steps"), 4);
  EXPECT_EQ(data.at("nan_steps"), 1);
  EXPECT_EQ(data["facts"][0][0], "Result");
  EXPECT_EQ(data["facts"][0][1][0], nlohmann::json::array({"steps", "3 of 4"}));
  EXPECT_EQ(data["curves"]["loss"], (nlohmann::json{{"step", {1, 3}}, {"value", {3.5, 2.5}}}));
  EXPECT_EQ(data["curves"]["val_loss"]["step"], nlohmann::json({3}));
  EXPECT_FALSE(data["curves"].contains("mfu"));
  EXPECT_TRUE(data.at("routing").is_null());
  EXPECT_TRUE(data.at("remarks").empty());
}

TEST(ReportData, OfARunWithoutASteps) {
  const TemporaryFolder folder;
  folder.write("run/deck.toml",
               std::string(kDeck) + "[moe]\nnum_experts = 4\nffn_hidden_size = 8\n");
  folder.write("run/metrics.jsonl", "");
  const nlohmann::json data = report_data(folder.path("run"));
  EXPECT_EQ(data.at("steps"), 0);
  EXPECT_EQ(data.at("remarks").size(), 2) << "no step, no routing.h5";
  folder.write("run/routing.h5", "damaged");
  EXPECT_NE(report_data(folder.path("run")).at("remarks").dump().find("cannot find HDF5 metadata"),
            std::string::npos);
}

TEST(HtmlReport, RefusesOtherFolders) {
  const TemporaryFolder folder;
  expect_error([&] { report_data(folder.path("none")); }, ExitCode::input, {"there is no folder"});
  folder.write("run/deck.toml", kDeck);
  expect_error([&] { report_data(folder.path("run")); }, ExitCode::input,
               {"is no folder of a run: it has no metrics.jsonl"});
  folder.write("other/metrics.jsonl", "");
  expect_error([&] { report_data(folder.path("other")); }, ExitCode::input, {"no deck.toml"});
  folder.write("run/metrics.jsonl", "");
  expect_error([&] { write_html_report(folder.path("run"), folder.path("none/report.html")); },
               ExitCode::io, {"none"});
}

}  // namespace
}  // namespace konclave
