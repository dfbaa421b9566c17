#include "comm/checked_transport.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <string>

namespace konclave {
namespace {

struct Checked : testing::Test {
  /// Of the members that are not the last one.
  std::string others() const {
    std::string text = "0";
    for (int member = 1; member < ranks - 1; ++member) text += ", " + std::to_string(member);
    return text;
  }
  void SetUp() override {
    if (ranks == 1) GTEST_SKIP() << "needs ranks that differ";
  }

  ExecSpace exec;
  /// Neither is ever freed: calls that don't fit leave collectives under way, which outlive their
  /// test, and MPI would go on with them on a communicator and in buffers that are no longer there.
  Tensors& tensors = *new Tensors(exec);
  const CheckedTransport& transport =
      *new CheckedTransport(std::make_shared<MpiTransport>(Communicator::world()));
  const int rank = transport.rank(), ranks = transport.size();
  const bool is_last = rank == ranks - 1;
  const std::string last = std::to_string(ranks - 1);
};

TEST_F(Checked, PassesOnWhatFits) {
  const AnyView mine = tensors.random("mine", DType::fp32, 2 * ranks, 3);
  const AnyView all = tensors.poisoned(DType::fp32, 2 * ranks * ranks, 3);
  transport.start_all_gather(exec, mine, all).wait(exec);
  EXPECT_EQ(to_doubles(exec, all.slice(2 * ranks * rank, 2 * ranks)), to_doubles(exec, mine));
  const std::vector<std::int64_t> two(static_cast<std::size_t>(ranks), 2);
  const AnyView received = tensors.poisoned(DType::fp32, 2 * ranks, 3);
  Request exchange = transport.start_all_to_all(exec, mine, two, received, two);
  Request reduction = transport.start_all_reduce(exec, mine);  // several under way
  while (!exchange.poll()) continue;
  exchange.wait(exec);
  reduction.wait(exec);
  transport.start_broadcast(exec, mine, ranks - 1).wait(exec);
  EXPECT_EQ(transport.sum(std::int64_t{1}), ranks);
}

TEST_F(Checked, NamesWhoCallsSomethingElse) {
  const AnyView mine = tensors.random("mine", DType::fp32, 2);
  const std::string collective =
      "group 'world': collective number 1 is not the same on all members:";
  expect_error(
      [&] {
        if (is_last) {
          transport.sum(1.0);
        } else {
          transport.start_all_reduce(exec, mine).wait(exec);
        }
      },
      ExitCode::internal,
      {collective, "all_reduce of 8 bytes (fp32) on " + others(), "gather of 8 bytes on " + last});
}

TEST_F(Checked, NamesWhoPassesAnotherCount) {
  std::vector<std::int64_t> values(is_last ? 3 : 4);
  expect_error([&] { transport.sum(std::span(values)); }, ExitCode::internal,
               {"gather of 24 bytes on " + last, "gather of 32 bytes on " + others()});
}

TEST_F(Checked, NamesWhoPassesAnotherTypeRootOrRows) {
  const AnyView narrow = tensors.random("narrow", DType::fp32, 4),
                wide = tensors.random("wide", DType::fp64, 2);
  expect_error([&] { transport.start_all_reduce(exec, is_last ? wide : narrow).wait(exec); },
               ExitCode::internal, {"(fp64) on " + last, "(fp32) on " + others()});
}

TEST_F(Checked, NamesWhoHasAnotherRoot) {
  const AnyView buffer = tensors.random("buffer", DType::fp32, 4);
  expect_error([&] { transport.start_broadcast(exec, buffer, is_last ? 1 : 0).wait(exec); },
               ExitCode::internal, {"from member 1 on " + last, "from member 0 on " + others()});
}

TEST_F(Checked, NamesRowsThatNobodyExpects) {
  // The last member has 1 row for each, and member 0 expects 2 of it.
  const std::vector<std::int64_t> one(static_cast<std::size_t>(ranks), 1);
  std::vector<std::int64_t> expected = one;
  if (rank == 0) expected.back() = 2;
  const AnyView send = tensors.random("send", DType::fp32, ranks, 2);
  const AnyView receive = tensors.poisoned(DType::fp32, ranks + (rank == 0 ? 1 : 0), 2);
  if (rank != 0) {
    transport.start_all_to_all(exec, send, one, receive, expected).wait(exec);
    return;
  }
  expect_error([&] { transport.start_all_to_all(exec, send, one, receive, expected).wait(exec); },
               ExitCode::internal,
               {"in all_to_all number 1 member " + last + " sends 1 rows, member 0 expects 2"});
}

}  // namespace
}  // namespace konclave
