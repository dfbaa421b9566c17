#include "comm/agreed.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace konclave {
namespace {

std::string text_of(int rank) { return "rank " + std::to_string(rank) + " failed"; }

/// Runs an action that should throw AgreedError, and gives it back.
template <typename Action> AgreedError agreed_error(Action&& action) {
  try {
    action();
  } catch (const AgreedError& error) {
    return error;
  }
  ADD_FAILURE() << "no AgreedError was thrown";
  return AgreedError("none", ExitCode::done);
}

TEST(Together, WithoutAnErrorGivesEachRankItsOwnValue) {
  const Communicator world = Communicator::world();
  EXPECT_EQ(together(world, [&] { return text_of(world.rank()); }), text_of(world.rank()));
  bool ran = false;
  together(world, [&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(Together, AnErrorOfOneRankIsThrownOnAll) {
  const Communicator world = Communicator::world();
  for (int failing = 0; failing < world.size(); ++failing) {
    const auto work = [&] {
      if (world.rank() == failing) fail(text_of(failing), ExitCode::input);
      return world.rank();
    };
    const AgreedError with_value = agreed_error([&] { together(world, work); });
    const AgreedError without = agreed_error([&] { together(world, [&] { work(); }); });
    for (const AgreedError& error : {with_value, without}) {
      EXPECT_EQ(std::string(error.what()), text_of(failing)) << "on rank " << world.rank();
      EXPECT_EQ(error.exit_code(), ExitCode::input);
    }
  }
}

TEST(Together, OfSeveralErrorsTheLowestRanksIsThrown) {
  const Communicator world = Communicator::world();
  const ExitCode codes[] = {ExitCode::io, ExitCode::memory};
  for (int lowest = 0; lowest < world.size(); ++lowest) {
    const AgreedError error = agreed_error([&] {
      together(world, [&] {
        if (world.rank() >= lowest) fail(text_of(world.rank()), codes[world.rank() % 2]);
      });
    });
    EXPECT_EQ(std::string(error.what()), text_of(lowest));
    EXPECT_EQ(error.exit_code(), codes[lowest % 2]);
  }
}

TEST(Together, ValuesNeedNoDefaultAndNoCopy) {
  struct Value {
    explicit Value(int number) : owned(std::make_unique<int>(number)) {}
    std::unique_ptr<int> owned;
  };
  const Communicator world = Communicator::world();
  EXPECT_EQ(*together(world, [&] { return Value(world.rank()); }).owned, world.rank());
}

TEST(OnRoot, RunsThereAlone) {
  const Communicator world = Communicator::world();
  bool ran = false;
  on_root(world, [&] { ran = true; });
  EXPECT_EQ(ran, world.rank() == 0);
}

TEST(OnRoot, AnErrorThereIsThrownOnAll) {
  const Communicator world = Communicator::world();
  const AgreedError error =
      agreed_error([&] { on_root(world, [] { fail("no such file", ExitCode::input); }); });
  EXPECT_EQ(std::string(error.what()), "no such file");
  EXPECT_EQ(error.exit_code(), ExitCode::input);
}

TEST(AgreeOnError, TheGroupGoesOnAfterwards) {
  const Communicator world = Communicator::world();
  const Error mine(std::string("with a \0 inside", 15), ExitCode::numerics);
  const bool speaks = world.rank() == world.size() - 1;
  const AgreedError error =
      agreed_error([&] { agree_on_error(world, speaks ? std::optional(mine) : std::nullopt); });
  EXPECT_EQ(error.exit_code(), ExitCode::numerics);
  EXPECT_NO_THROW(agree_on_error(world, std::nullopt));
  EXPECT_TRUE(world.agree(true));
}

TEST(Gather, TheRootGetsTheTextsOfAllInTheirOrder) {
  const Communicator world = Communicator::world();
  // Different lengths, "" among them, and a zero inside.
  const auto text = [](int rank) {
    return rank % 3 == 1
               ? std::string()
               : std::string(static_cast<std::size_t>(40 * rank + 1), '\0') + std::to_string(rank);
  };
  for (int root = 0; root < world.size(); ++root) {
    std::vector<std::string> expected;
    for (int rank = 0; root == world.rank() && rank < world.size(); ++rank) {
      expected.push_back(text(rank));
    }
    EXPECT_EQ(world.gather(text(world.rank()), root), expected);
    EXPECT_EQ(world.gather("", root), std::vector<std::string>(expected.size()));
  }
}

}  // namespace
}  // namespace konclave
