#pragma once

#include "run/hang_report.hpp"

#include <string>
#include <vector>

namespace konclave {

// Words of a report on a job that hangs.

std::string seconds_text(double seconds);

/// "0 to 2, 5": ranks in ascending order.
std::string rank_list(const std::vector<int>& ranks);
/// The same behind "rank" or "ranks".
std::string ranks_text(const std::vector<int>& ranks);

/// The call of this number, if the stream's state still has it.
const CallRecord* find_call(const StreamState& stream, std::int64_t number);

/// "all_gather number 17 of group dp (96 bytes)", "receive number 3 from rank 1 in group pp (...)".
std::string call_text(const CallStream& stream, const CallRecord& call);

/// The stream of what a rank waits for, which it does.
const CallStream& stream_of_wait(const RankEvidence& rank);

/// What a rank does instead of what others wait for: "it waits in ...", "it is in no ...".
std::string whereabouts(const RankEvidence& rank);

/// A heading, and a line for each rank with the last call of each of its streams.
std::vector<std::string> last_calls(const EvidenceOfRanks& ranks);

}  // namespace konclave
