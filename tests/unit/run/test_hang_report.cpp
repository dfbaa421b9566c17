#include "base/text.hpp"
#include "run/hang_report.hpp"
#include "run/hang_text.hpp"
#include "tests/support/expect_error.hpp"

#include <gmock/gmock.h>

namespace konclave {
namespace {

using testing::HasSubstr;
using testing::Not;

/// The evidence of some ranks, made call by call.
struct Job {
  explicit Job(int count) : ranks(static_cast<std::size_t>(count)) {
    for (auto& rank : ranks) rank = RankEvidence{"host-1", "step 7", 5.5, 5, {}};
  }

  StreamState& stream(int rank, const CallStream& what) {
    auto& streams = ranks[static_cast<std::size_t>(rank)]->calls.streams;
    for (StreamState& state : streams) {
      if (state.stream == what) return state;
    }
    return streams.emplace_back(StreamState{what, 0, {}});
  }

  /// The next call of a stream.
  void call(int rank, const CallStream& what, const std::string& kind, std::int64_t bytes,
            bool finished = true) {
    StreamState& state = stream(rank, what);
    state.last.push_back({kind, bytes, ++state.calls, finished, 4});
  }

  /// A call for which the rank then waits.
  void wait(int rank, const CallStream& what, const std::string& kind, std::int64_t bytes) {
    call(rank, what, kind, bytes, /*finished=*/false);
    LedgerState& calls = ranks[static_cast<std::size_t>(rank)]->calls;
    for (std::size_t i = 0; i < calls.streams.size(); ++i) {
      if (calls.streams[i].stream == what) calls.wait = WaitState{i, calls.streams[i].last.back()};
    }
  }

  std::string explain() const { return join(explain_hang(ranks), "\n"); }

  EvidenceOfRanks ranks;
};

const CallStream kWorld{"world", {0, 1, 2}, "together", -1, 0};
const CallStream kEp{"ep", {1, 2}, "together", -1, 0};

TEST(HangReport, SaysWhatTookTooLong) {
  Job job(1);
  EXPECT_THAT(job.explain(),
              HasSubstr("step 7 has taken longer than the 5.0 s that fault.step_timeout gives it"));
}

TEST(HangReport, NamesARankThatIsElsewhere) {
  Job job(3);
  for (int rank = 0; rank < 3; ++rank) job.call(rank, kWorld, "gather", 8);
  for (const int rank : {0, 2}) job.wait(rank, kWorld, "all_gather", 96);
  const std::string text = job.explain();
  EXPECT_THAT(text, HasSubstr("\nrank 1 is in no exchange of a group\n"));
  EXPECT_THAT(text, HasSubstr("ranks 0, 2 wait in all_gather number 2 of group world (96 bytes)"));
  EXPECT_THAT(text,
              HasSubstr("rank 1 is missing: of these it has begun number 1, gather of 8 "
                        "bytes; it is in no exchange of a group but elsewhere in step 7, which it "
                        "began 5.5 s ago; its last was gather number 1 of group world (8 "
                        "bytes), ended 4.0 s ago"));
  EXPECT_THAT(text, HasSubstr("rank 2 (host-1), 5.5 s in step 7: world: 2, all_gather, 96, begun"));
}

TEST(HangReport, NamesASilentRank) {
  Job job(3);
  for (const int rank : {0, 1}) job.wait(rank, kWorld, "gather", 8);
  job.ranks[2].reset();
  const std::string text = job.explain();
  EXPECT_THAT(text, HasSubstr("\nrank 2 has left no evidence: stopped, dead, or"));
  EXPECT_THAT(text, HasSubstr("  rank 2 is missing: it has left no evidence"));
}

TEST(HangReport, FollowsARankThatWaitsInAnotherGroup) {
  Job job(3);
  for (const int rank : {0, 1}) job.wait(rank, kWorld, "gather", 8);
  job.wait(2, kEp, "all_to_all", 512);
  const std::string text = job.explain();
  EXPECT_THAT(text,
              HasSubstr("ranks wait for each other; where most of them wait, missing: rank 2\n"));
  EXPECT_THAT(text, HasSubstr("rank 2 is missing: of these it has begun none; it waits in "
                              "all_to_all number 1 of group ep (512 bytes) since 4.0 s"));
  EXPECT_THAT(text, HasSubstr("rank 1 is missing: of these it has begun none; it waits in gather"));
}

TEST(HangReport, SaysWhoIsInAnotherStep) {
  Job job(3);
  for (const int rank : {0, 1}) job.wait(rank, kWorld, "gather", 8);
  job.wait(2, kEp, "all_to_all", 512);
  job.ranks[2]->doing = "step 8";
  EXPECT_THAT(job.explain(),
              HasSubstr("missing: rank 2; ranks 0, 1 in step 7, rank 2 in step 8\n"));
}

TEST(HangReport, KnowsGroupsOfOneNameApart) {
  Job job(4);
  const CallStream first{"dp", {0, 1}, "together", -1, 0}, second{"dp", {2, 3}, "together", -1, 0};
  job.wait(0, first, "gather", 8);
  job.call(2, second, "gather", 8);
  const std::string text = job.explain();
  EXPECT_THAT(text, HasSubstr("rank 1 is missing: of these it has begun none"));
  EXPECT_THAT(text, Not(HasSubstr("rank 3 is missing")));
}

TEST(HangReport, NamesAMismatch) {
  for (const bool other_kind : {true, false}) {
    Job job(3);
    for (const int rank : {0, 1}) job.wait(rank, kWorld, "gather", 96);
    job.call(2, kWorld, other_kind ? "all_gather" : "gather", other_kind ? 96 : 72);
    const std::string text = job.explain();
    EXPECT_THAT(text, HasSubstr("the calls of rank 2 do not fit those of others"));
    EXPECT_THAT(text,
                HasSubstr(other_kind ? "mismatch: as number 1 rank 2 calls all_gather with 96 "
                                       "bytes, where rank 0 calls gather with 96 bytes"
                                     : "mismatch: as number 1 rank 2 calls gather with 72 bytes"));
  }
}

TEST(HangReport, LeavesEachRankItsOwnRowsInAnAllToAll) {
  Job job(3);
  job.wait(1, kEp, "all_to_all", 96);
  job.wait(2, kEp, "all_to_all", 72);
  EXPECT_THAT(job.explain(), Not(HasSubstr("mismatch")));
  EXPECT_THAT(job.explain(), HasSubstr("ranks 1, 2 wait in all_to_all number 1"));
}

TEST(HangReport, SaysWhoHasBegunWithoutWaiting) {
  Job job(3);
  for (const int rank : {0, 1}) job.wait(rank, kWorld, "all_gather", 8);
  job.call(2, kWorld, "all_gather", 8, /*finished=*/false);
  EXPECT_THAT(job.explain(),
              HasSubstr("rank 2 has begun it and does not wait for it; it is in no"));
  EXPECT_THAT(job.explain(), HasSubstr("begun and not yet waited for 4.0 s ago"));
}

TEST(HangReport, MatchesMessages) {
  Job job(3);
  const std::vector<int> members = {0, 1, 2};
  const CallStream from_0{"pp", members, "from", 0, 1}, to_1{"pp", members, "to", 1, 1};
  job.call(0, to_1, "send", 40);
  job.call(1, from_0, "receive", 40);
  job.wait(1, from_0, "receive", 40);
  job.call(0, {"pp", members, "to", 2, 1}, "send", 40);  // to another rank
  job.call(0, {"pp", members, "to", 1, 0}, "send", 40);  // on another channel
  const std::string text = job.explain();
  EXPECT_THAT(text,
              HasSubstr("rank 1 waits in receive number 2 from rank 0 in group pp, channel 1 (40"));
  EXPECT_THAT(text, HasSubstr("rank 0 is missing: of these it has begun number 1, send of 40"));
  EXPECT_THAT(text, Not(HasSubstr("rank 2 is missing")));

  job.call(0, to_1, "send", 24);
  EXPECT_THAT(job.explain(), HasSubstr("mismatch: as number 2 rank 0 calls send with 24 bytes, "
                                       "where rank 1 calls receive with 40 bytes"));
}

TEST(HangReport, IsShortForManyRanks) {
  Job job(5000);
  CallStream all{"world", {}, "together", -1, 0};
  for (int rank = 0; rank < 5000; ++rank) all.members.push_back(rank);
  for (int rank = 0; rank < 10; ++rank) job.wait(rank, all, "gather", 8);
  const auto lines = explain_hang(job.ranks);
  EXPECT_LT(lines.size(), 300U);
  EXPECT_THAT(lines, testing::Contains("ranks 10 to 4999 are in no exchange of a group"));
}

TEST(HangReport, ReadsWhatItWrote) {
  Job job(3);
  job.call(1, kWorld, "gather", 8);
  job.wait(1, kEp, "all_to_all", 96);
  const RankEvidence& mine = *job.ranks[1];
  const RankEvidence read = read_evidence(evidence_json(mine));
  EXPECT_EQ(evidence_json(read), evidence_json(mine));
  EXPECT_EQ(read.calls.streams[1].stream, kEp);
  EXPECT_EQ(read.calls.wait->stream, 1U);
  EXPECT_EQ(read.calls.wait->call.bytes, 96);
  EXPECT_EQ(read_evidence(evidence_json(*job.ranks[0])).calls.wait, std::nullopt);
  expect_error([] { read_evidence("{\"process\": "); }, ExitCode::io, {"evidence of a rank"});
}

TEST(HangReport, ListsRanks) {
  EXPECT_EQ(rank_list({0, 1, 2, 5, 7, 8}), "0 to 2, 5, 7, 8");
  EXPECT_EQ(rank_list({}), "");
}

}  // namespace
}  // namespace konclave
