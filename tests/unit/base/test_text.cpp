#include "base/text.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace konclave {
namespace {

TEST(EditDistance, CountsEachKindOfSlipOnce) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("top_k", "top_k"), 0);
  EXPECT_EQ(edit_distance("topk", "top_k"), 1) << "insertion";
  EXPECT_EQ(edit_distance("top__k", "top_k"), 1) << "deletion";
  EXPECT_EQ(edit_distance("top-k", "top_k"), 1) << "substitution";
  EXPECT_EQ(edit_distance("tpo_k", "top_k"), 1) << "swap of neighbours";
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
}

RC_GTEST_PROP(EditDistance, IsSymmetricAndBounded, (const std::string& a, const std::string& b)) {
  const int distance = edit_distance(a, b);
  RC_ASSERT(distance == edit_distance(b, a));
  RC_ASSERT((distance == 0) == (a == b));
  RC_ASSERT(distance <= static_cast<int>(std::max(a.size(), b.size())));
}

TEST(Nearest, FindsWhatWasMeantOrNothing) {
  const std::vector<std::string> keys{"lr", "min_lr", "weight_decay", "warmup_steps"};
  EXPECT_EQ(nearest("wieght_decay", keys), "weight_decay");
  EXPECT_EQ(nearest("warmup", keys), "") << "six letters missing is too far";
  EXPECT_EQ(nearest("l", keys), "lr");
  EXPECT_EQ(nearest("colour", keys), "");
  EXPECT_EQ(nearest("lr", {}), "");
}

TEST(MatchesGlob, StarsAndQuestionMarks) {
  EXPECT_TRUE(matches_glob("moe.*", "moe.top_k"));
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("*top*k", "moe.top_k"));
  EXPECT_TRUE(matches_glob("a**b", "ab"));
  EXPECT_TRUE(matches_glob("?r", "lr"));
  EXPECT_FALSE(matches_glob("?", ""));
  EXPECT_FALSE(matches_glob("moe", "moe.top_k"));
  EXPECT_FALSE(matches_glob("*.top", "moe.top_k"));
  EXPECT_FALSE(matches_glob("", "a"));
  EXPECT_TRUE(matches_glob("[ab]", "[ab]")) << "brackets are plain letters";
}

RC_GTEST_PROP(MatchesGlob, AnyPartMayBecomeAStar, (const std::string& text)) {
  const auto begin = *rc::gen::inRange<std::size_t>(0, text.size() + 1);
  const auto end = *rc::gen::inRange<std::size_t>(begin, text.size() + 1);
  std::string glob = text.substr(0, begin) + "*" + text.substr(end);
  RC_ASSERT(matches_glob(glob, text));
}

TEST(Join, PutsTheSeparatorBetween) {
  EXPECT_EQ(join({}, ", "), "");
  EXPECT_EQ(join({"a"}, ", "), "a");
  EXPECT_EQ(join({"a", "", "b"}, ", "), "a, , b");
}

TEST(Enumerate, PutsTheConjunctionBeforeTheLast) {
  EXPECT_EQ(enumerate({}, "and"), "");
  EXPECT_EQ(enumerate({"a"}, "and"), "a");
  EXPECT_EQ(enumerate({"a", "b"}, "and"), "a and b");
  EXPECT_EQ(enumerate({"a", "b", "c"}, "or"), "a, b or c");
  EXPECT_EQ(any_of(std::vector<int>{1, 2, 4}), "1, 2 or 4");
}

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.0 KiB");
  EXPECT_EQ(format_bytes(12'900'000), "12.3 MiB");
  EXPECT_EQ(format_bytes(std::int64_t{3} << 40), "3.0 TiB");
  EXPECT_EQ(format_bytes(std::int64_t{5000} << 40), "5000.0 TiB") << "the last unit";
}

TEST(FormatDuration, PicksTheUnit) {
  EXPECT_EQ(format_duration(4.2), "4.2 s");
  EXPECT_EQ(format_duration(59.4), "59.4 s");
  EXPECT_EQ(format_duration(59.7), "1 min 00 s") << "never 60 s";
  EXPECT_EQ(format_duration(185), "3 min 05 s");
  EXPECT_EQ(format_duration(3599.9), "1 h 00 min");
  EXPECT_EQ(format_duration(3725), "1 h 02 min");
}

TEST(ParseDuration, TakesSecondsAndUnits) {
  EXPECT_EQ(parse_duration("90"), 90);
  EXPECT_EQ(parse_duration("45 s"), 45);
  EXPECT_EQ(parse_duration("0.5h"), 1800);
  EXPECT_EQ(parse_duration(" 2 h 30 min "), 9000);
  EXPECT_EQ(parse_duration("1d"), 86400);
}

TEST(ParseDuration, SaysWhatItTakes) {
  for (const char* text : {"", "  ", "soon", "5 parsecs", "-3 s", "2:30:00", "3 s later", "nan",
                           "inf", "1 h 30", "5 5"}) {
    expect_error([&] { parse_duration(text); }, ExitCode::usage, {text, "2 h 30 min"});
  }
}

}  // namespace
}  // namespace konclave
