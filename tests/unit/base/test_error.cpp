#include "base/error.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <string>

namespace konclave {
namespace {

TEST(Error, ExitCodesAreThoseThatBatchScriptsKnow) {
  EXPECT_EQ(static_cast<int>(ExitCode::done), 0);
  EXPECT_EQ(static_cast<int>(ExitCode::usage), 64);
  EXPECT_EQ(static_cast<int>(ExitCode::deck), 65);
  EXPECT_EQ(static_cast<int>(ExitCode::input), 66);
  EXPECT_EQ(static_cast<int>(ExitCode::resource), 69);
  EXPECT_EQ(static_cast<int>(ExitCode::internal), 70);
  EXPECT_EQ(static_cast<int>(ExitCode::io), 74);
  EXPECT_EQ(static_cast<int>(ExitCode::resubmit), 75);
  EXPECT_EQ(static_cast<int>(ExitCode::numerics), 76);
  EXPECT_EQ(static_cast<int>(ExitCode::memory), 78);
}

TEST(Error, RequireThrowsOnlyWhenItDoesNotHold) {
  EXPECT_NO_THROW(require(true, "fine"));
  expect_error([] { require(false, "4 is no multiple of 3", ExitCode::deck); }, ExitCode::deck,
               {"4 is no multiple of 3"});
  expect_error([] { require(false, "broken"); }, ExitCode::internal, {"broken"});
}

TEST(Error, NamesTheLineOfTheCheckThatFailed) {
  int line = 0;
  std::string where;
  try {
    line = __LINE__ + 1;
    require(false, "broken");
  } catch (const Error& error) {
    where = error.where();
  }
  EXPECT_NE(where.find("test_error.cpp:" + std::to_string(line)), std::string::npos) << where;
}

}  // namespace
}  // namespace konclave
