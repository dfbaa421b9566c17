#include "moe/local_assignments.hpp"
#include "tests/unit/model/workbench.hpp"

#include <utility>

namespace konclave {
namespace {

using Integers = std::vector<int>;

/// Picks and reads back.
struct LocalAssignmentsTest : testing::Test {
  LocalAssignments pick(const Integers& offsets, const Integers& experts, int first, int local,
                        int rows) {
    return pick_local(bench.context(), bench.tensors.integers(offsets),
                      bench.tensors.integers(experts), first, local, rows);
  }
  Integers read(const View1<const int>& view) const { return to_host(bench.exec, view); }

  Workbench bench;
};

/// Four tokens, of two, none, three and one experts; the local ones are 2 and 3.
TEST_F(LocalAssignmentsTest, AreRowsInTheOrderOfExpertsAndTokens) {
  const LocalAssignments local = pick({0, 2, 2, 5, 6}, {0, 3, 2, 3, 5, 2}, 2, 2, 4);
  EXPECT_EQ(read(local.token_offsets), (Integers{0, 1, 1, 3, 4}));
  EXPECT_EQ(read(local.expert_offsets), (Integers{0, 2, 4}));
  EXPECT_EQ(read(local.assignment_of), (Integers{2, 5, 1, 3}));
  EXPECT_EQ(read(local.row_of), (Integers{2, 0, 3, 1}));
}

TEST_F(LocalAssignmentsTest, MayBeNone) {
  for (const auto& [offsets, experts] :
       {std::pair<Integers, Integers>{{0}, {}}, {{0, 0, 0}, {}}, {{0, 1, 2}, {1, 0}}}) {
    const LocalAssignments local = pick(offsets, experts, 2, 3, 0);
    EXPECT_EQ(read(local.token_offsets), Integers(offsets.size(), 0));
    EXPECT_EQ(read(local.expert_offsets), (Integers{0, 0, 0, 0}));
    EXPECT_EQ(local.row_of.size(), 0U);
  }
}

TEST_F(LocalAssignmentsTest, MayBeAll) {
  const LocalAssignments local = pick({0, 2, 4}, {0, 1, 0, 1}, 0, 2, 4);
  EXPECT_EQ(read(local.token_offsets), (Integers{0, 2, 4}));
  EXPECT_EQ(read(local.assignment_of), (Integers{0, 2, 1, 3}));
}

}  // namespace
}  // namespace konclave
