#include "base/trace.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <rapidcheck/gtest.h>

#include <chrono>
#include <map>
#include <set>

namespace konclave {
namespace {

using nlohmann::json;

/// The events of one rank in the file, by "ph".
std::map<std::string, std::vector<json>> parsed(const Trace& trace, int rank = 0) {
  std::map<std::string, std::vector<json>> events;
  const json file = json::parse(trace_json({trace.json_events(rank)}));
  for (const json& event : file["traceEvents"]) events[event["ph"]].push_back(event);
  return events;
}

/// Threads of a rank with their names, and the names of the events on each.
std::map<int, std::string> thread_names(const std::vector<json>& metadata) {
  std::map<int, std::string> names;
  for (const json& entry : metadata) {
    if (entry["name"] == "thread_name") names[entry["tid"]] = entry["args"]["name"];
  }
  return names;
}

TraceEvent event(const std::string& name, const std::string& row, std::int64_t begin,
                 std::int64_t end) {
  return {name, "test", row, begin, end, {}};
}

TEST(Trace, KeepsNothingUnlessItRecords) {
  Trace trace;
  EXPECT_FALSE(trace.recording());
  trace.add(event("before", "compute", 1, 2));
  { const TraceSpan span(&trace, "before", "test"); }
  EXPECT_TRUE(trace.events().empty());
  trace.set_recording(true);
  trace.add(event("during", "compute", 3, 4));
  trace.set_recording(false);
  trace.add(event("after", "compute", 5, 6));
  ASSERT_EQ(trace.events().size(), 1U);
  EXPECT_EQ(trace.events()[0].name, "during");
}

TEST(Trace, ItsClockIsTheSystemsAndNeverGoesBack) {
  const Trace trace;
  const auto system = [] {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  constexpr std::int64_t kMinute = 60'000'000'000;
  EXPECT_LT(std::abs(trace.now() - system()), kMinute);
  std::int64_t last = trace.now();
  for (int i = 0; i < 1000; ++i) {
    const std::int64_t now = trace.now();
    EXPECT_GE(now, last);
    last = now;
  }
}

TEST(TraceSpan, IsAnEventAsLongAsTheObject) {
  Trace trace;
  trace.set_recording(true);
  const std::int64_t before = trace.now();
  {
    TraceSpan outer(&trace, "forward", "layer");
    outer.argument("micro_batch", 3);
    const TraceSpan inner(&trace, "all_gather", "communication", "ep");
  }
  ASSERT_EQ(trace.events().size(), 2U);
  const TraceEvent &inner = trace.events()[0], &outer = trace.events()[1];
  EXPECT_EQ(inner.name, "all_gather");
  EXPECT_EQ(inner.category, "communication");
  EXPECT_EQ(inner.row, "ep");
  EXPECT_EQ(outer.name, "forward");
  EXPECT_EQ(outer.row, "compute");
  ASSERT_EQ(outer.arguments.size(), 1U);
  EXPECT_EQ(outer.arguments[0], TraceArgument("micro_batch", TraceValue(3)));
  EXPECT_LE(before, outer.begin);
  EXPECT_LE(outer.begin, inner.begin);
  EXPECT_LE(inner.begin, inner.end);
  EXPECT_LE(inner.end, outer.end);
  EXPECT_LE(outer.end, trace.now());
}

TEST(TraceSpan, NeedsATraceThatRecordsFromBeginToEnd) {
  {
    TraceSpan none(nullptr, "none", "test");
    none.argument("size", 1);
  }
  Trace trace;
  {
    TraceSpan late(&trace, "late", "test");
    trace.set_recording(true);
    late.argument("size", 1);
  }
  {
    const TraceSpan early(&trace, "early", "test");
    trace.set_recording(false);
  }
  EXPECT_TRUE(trace.events().empty());
}

TEST(TraceJson, HasNamesPlacesTimesAndArguments) {
  Trace trace;
  trace.set_recording(true);
  trace.add({"a \"quoted\" name",
             "layer",
             "compute",
             1'700'000'000'123'456'789,
             1'700'000'000'123'459'000,
             {{"rows", 12}, {"loss", 0.5}, {"layer", "blocks\\3"}}});
  const std::string text = trace_json({trace.json_events(2)});
  EXPECT_NE(text.find(R"("ts": 1700000000123456.789, "dur": 2.211,)"), std::string::npos)
      << "all digits, no exponent: " << text;
  const json file = json::parse(text);
  EXPECT_EQ(file["displayTimeUnit"], "ms");
  auto events = parsed(trace, 2);
  ASSERT_EQ(events["X"].size(), 1U);
  const json& drawn = events["X"][0];
  EXPECT_EQ(drawn["name"], "a \"quoted\" name");
  EXPECT_EQ(drawn["cat"], "layer");
  EXPECT_EQ(drawn["pid"], 2);
  EXPECT_EQ(drawn["args"], (json{{"rows", 12}, {"loss", 0.5}, {"layer", "blocks\\3"}}));
  ASSERT_EQ(events["M"].size(), 4U);
  EXPECT_EQ(
      events["M"][0],
      (json{{"ph", "M"}, {"name", "process_name"}, {"pid", 2}, {"args", {{"name", "rank 2"}}}}));
  EXPECT_EQ(events["M"][1]["args"]["sort_index"], 2);
  EXPECT_EQ(thread_names(events["M"]), (std::map<int, std::string>{{0, "compute"}}));
}

TEST(TraceJson, HasAThreadForEachRowInTheSameOrderOnAllRanks) {
  Trace trace;
  trace.set_recording(true);
  trace.add(event("one", "ep", 10, 20));
  trace.add(event("two", "compute", 15, 30));
  trace.add(event("three", "ep", 20, 25));
  auto events = parsed(trace);
  EXPECT_EQ(thread_names(events["M"]), (std::map<int, std::string>{{0, "compute"}, {1, "ep"}}));
  std::map<std::string, int> threads;
  for (const json& drawn : events["X"]) threads[drawn["name"]] = drawn["tid"];
  EXPECT_EQ(threads, (std::map<std::string, int>{{"one", 1}, {"two", 0}, {"three", 1}}));
}

TEST(TraceJson, EventsThatOverlapAreOnThreadsOfOneName) {
  Trace trace;
  trace.set_recording(true);
  trace.add(event("outer", "pp", 10, 40));
  trace.add(event("within", "pp", 10, 30));
  trace.add(event("beyond", "pp", 20, 50));
  trace.add(event("next", "pp", 40, 60));
  auto events = parsed(trace);
  EXPECT_EQ(thread_names(events["M"]), (std::map<int, std::string>{{0, "pp"}, {1, "pp"}}));
  std::map<std::string, int> threads;
  for (const json& drawn : events["X"]) threads[drawn["name"]] = drawn["tid"];
  EXPECT_EQ(threads,
            (std::map<std::string, int>{{"outer", 0}, {"within", 0}, {"beyond", 1}, {"next", 0}}));
}

RC_GTEST_PROP(TraceJson, OnAThreadEventsAreWithinOneAnotherOrApart, ()) {
  Trace trace;
  trace.set_recording(true);
  const int count = *rc::gen::inRange(1, 30);
  for (int i = 0; i < count; ++i) {
    const auto begin = *rc::gen::inRange<std::int64_t>(0, 40);
    const auto length = *rc::gen::inRange<std::int64_t>(0, 20);
    trace.add(event(std::to_string(i), "row", 1000 * begin, 1000 * (begin + length)));
  }
  const std::vector<json> drawn = parsed(trace)["X"];
  RC_ASSERT(drawn.size() == static_cast<std::size_t>(count));
  for (const json& a : drawn) {
    for (const json& b : drawn) {
      if (a["tid"] != b["tid"] || a["ts"] > b["ts"]) continue;
      const double end_a = a["ts"].get<double>() + a["dur"].get<double>();
      const double end_b = b["ts"].get<double>() + b["dur"].get<double>();
      RC_ASSERT(a["ts"] == b["ts"] || b["ts"] >= end_a || end_b <= end_a);
    }
  }
}

TEST(TraceJson, JoinsRanksAndIsAFileWithoutAny) {
  Trace first, second;
  first.set_recording(true);
  first.add(event("one", "compute", 10, 20));
  const json file = json::parse(trace_json({first.json_events(0), second.json_events(1)}));
  std::set<int> ranks;
  for (const json& entry : file["traceEvents"]) ranks.insert(entry["pid"].get<int>());
  EXPECT_EQ(ranks, (std::set<int>{0, 1})) << "also the one that did nothing";
  EXPECT_TRUE(json::parse(trace_json({}))["traceEvents"].empty());
}

}  // namespace
}  // namespace konclave
