#include "layers/sequences.hpp"
#include "tensor/host_copy.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace konclave {
namespace {

std::vector<int> range(int end) {
  std::vector<int> values(static_cast<std::size_t>(end));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

TEST(ZigzagPositions, ARankHasAnEarlyAndALateChunk) {
  EXPECT_EQ(zigzag_positions(12, 0, 3), (std::vector<int>{0, 1, 10, 11}));
  EXPECT_EQ(zigzag_positions(12, 1, 3), (std::vector<int>{2, 3, 8, 9}));
  EXPECT_EQ(zigzag_positions(12, 2, 3), (std::vector<int>{4, 5, 6, 7}));
}

TEST(ZigzagPositions, OneRankHasAllOfAnyLength) {
  for (const int length : {0, 1, 7}) EXPECT_EQ(zigzag_positions(length, 0, 1), range(length));
}

TEST(ZigzagPositions, RanksShareOutPositionsAndWork) {
  for (const int ranks : {2, 3, 4, 8, 16}) {
    for (const int chunk : {0, 1, 5}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, chunks of " << chunk);
      const int length = 2 * ranks * chunk;
      std::vector<int> all;
      std::vector<std::int64_t> keys_seen;
      for (int rank = 0; rank < ranks; ++rank) {
        const std::vector<int> mine = zigzag_positions(length, rank, ranks);
        EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
        all.insert(all.end(), mine.begin(), mine.end());
        keys_seen.push_back(std::accumulate(mine.begin(), mine.end(), std::int64_t{0}));
      }
      std::sort(all.begin(), all.end());
      EXPECT_EQ(all, range(length));
      EXPECT_EQ(keys_seen, std::vector(keys_seen.size(), keys_seen.front()));
    }
  }
}

TEST(ZigzagPositions, OtherLengthsAreRefused) {
  expect_error([] { zigzag_positions(10, 0, 2); }, ExitCode::internal, {"10", "2 ranks"});
}

class SequencesOfRanks : public testing::Test {
 protected:
  Sequences make(int count, int length, int rank, int ranks) {
    return make_sequences(exec_, arena_, count, length, rank, ranks);
  }
  std::vector<int> host(const View1<const int>& view) const { return to_host(exec_, view); }

  ExecSpace exec_;
  MemoryAccount account_;
  Arena arena_{account_, MemoryClass::activations, "tables"};
};

TEST_F(SequencesOfRanks, OneRankHasWholeSequences) {
  const Sequences sequences = make(2, 3, 0, 1);
  EXPECT_EQ(sequences.count, 2);
  EXPECT_EQ(sequences.tokens, 6);
  EXPECT_EQ(sequences.longest, 3);
  EXPECT_EQ(host(sequences.offsets), (std::vector<int>{0, 3, 6}));
  EXPECT_EQ(host(sequences.positions), (std::vector<int>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(sequences.whole.positions.size(), 0U);
}

TEST_F(SequencesOfRanks, TablesOfTwoRanks) {
  const Sequences sequences = make(2, 4, 1, 2);
  EXPECT_EQ(sequences.count, 2);
  EXPECT_EQ(sequences.tokens, 4);
  EXPECT_EQ(sequences.longest, 2);
  EXPECT_EQ(host(sequences.offsets), (std::vector<int>{0, 2, 4}));
  EXPECT_EQ(host(sequences.positions), (std::vector<int>{1, 2, 1, 2}));
  const WholeSequences& whole = sequences.whole;
  EXPECT_EQ(whole.longest, 4);
  EXPECT_EQ(host(whole.offsets), (std::vector<int>{0, 4, 8}));
  EXPECT_EQ(host(whole.positions), (std::vector<int>{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(host(whole.rank_positions), (std::vector<int>{0, 3, 0, 3, 1, 2, 1, 2}));
  EXPECT_EQ(host(whole.place_of), (std::vector<int>{0, 3, 4, 7, 1, 2, 5, 6}));
  EXPECT_EQ(host(whole.arrival_of), (std::vector<int>{0, 4, 5, 1, 2, 6, 7, 3}));
}

TEST_F(SequencesOfRanks, TablesAgreeOnAllRanks) {
  for (const int ranks : {2, 3, 4}) {
    for (const int count : {0, 1, 3}) {
      SCOPED_TRACE(testing::Message() << ranks << " ranks, " << count << " sequences");
      const int length = 6 * ranks;
      std::vector<int> rank_positions;
      for (int rank = 0; rank < ranks; ++rank) {
        const std::vector<int> mine = host(make(count, length, rank, ranks).positions);
        rank_positions.insert(rank_positions.end(), mine.begin(), mine.end());
      }
      for (int rank = 0; rank < ranks; ++rank) {
        const WholeSequences whole = make(count, length, rank, ranks).whole;
        EXPECT_EQ(host(whole.rank_positions), rank_positions);
        const std::vector<int> arrival_of = host(whole.arrival_of), place_of = host(whole.place_of),
                               positions = host(whole.positions);
        ASSERT_EQ(arrival_of.size(), rank_positions.size());
        for (std::size_t place = 0; place < arrival_of.size(); ++place) {
          const auto row = static_cast<std::size_t>(arrival_of[place]);
          EXPECT_EQ(positions[place], static_cast<int>(place) % length);
          EXPECT_EQ(rank_positions[row], positions[place]);
          EXPECT_EQ(place_of[row], static_cast<int>(place));
        }
      }
    }
  }
}

}  // namespace
}  // namespace konclave
