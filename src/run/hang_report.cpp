#include "run/hang_report.hpp"

#include "base/text.hpp"
#include "run/hang_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace konclave {

namespace {

constexpr std::size_t kMostLines = 200;

const StreamState* find_stream(const RankEvidence& rank, const CallStream& wanted) {
  for (const StreamState& stream : rank.calls.streams) {
    if (stream.stream == wanted) return &stream;
  }
  return nullptr;
}

/// What ranks wait for together: one number of one stream.
struct Meeting {
  CallStream stream;
  std::int64_t number = 0;
  CallRecord call;  ///< of the lowest rank that waits
  std::vector<int> waiting;
};

class Explanation {
 public:
  explicit Explanation(const EvidenceOfRanks& ranks) : ranks_(ranks) {}

  std::vector<std::string> make() {
    for (const Meeting& meeting : meetings()) explain(meeting);
    std::vector<int> silent, elsewhere;
    for (int rank = 0; rank < count(); ++rank) {
      if (!known(rank)) silent.push_back(rank);
      if (known(rank) && !at(rank).calls.wait) elsewhere.push_back(rank);
    }
    std::vector<std::string> lines = {conclusion(silent, elsewhere)};
    if (lines_.size() > kMostLines) {
      lines_.resize(kMostLines);
      lines_.emplace_back("and so on");
    }
    lines.insert(lines.end(), lines_.begin(), lines_.end());
    const std::vector<std::string> calls = last_calls(ranks_);
    lines.insert(lines.end(), calls.begin(), calls.end());
    return lines;
  }

 private:
  int count() const { return static_cast<int>(ranks_.size()); }
  bool known(int rank) const {
    return rank >= 0 && rank < count() && ranks_[static_cast<std::size_t>(rank)].has_value();
  }
  const RankEvidence& at(int rank) const { return *ranks_[static_cast<std::size_t>(rank)]; }

  std::vector<Meeting> meetings() const {
    std::vector<Meeting> found;
    for (int rank = 0; rank < count(); ++rank) {
      if (!known(rank) || !at(rank).calls.wait) continue;
      const CallStream& stream = stream_of_wait(at(rank));
      const CallRecord& call = at(rank).calls.wait->call;
      const auto same = std::find_if(found.begin(), found.end(), [&](const Meeting& meeting) {
        return meeting.stream == stream && meeting.number == call.number && stream.peer < 0;
      });
      if (same == found.end()) {
        found.push_back({stream, call.number, call, {rank}});
      } else {
        same->waiting.push_back(rank);
      }
    }
    return found;
  }

  void explain(const Meeting& meeting) {
    const CallStream& stream = meeting.stream;
    missing_.clear();
    lines_.push_back(fmt::format("{} wait{} in {}", ranks_text(meeting.waiting),
                                 meeting.waiting.size() == 1 ? "s" : "",
                                 call_text(stream, meeting.call)));
    if (stream.peer >= 0) {
      CallStream other = stream;
      other.direction = stream.direction == "to" ? "from" : "to";
      other.peer = meeting.waiting.front();
      explain_member(meeting, other, stream.peer);
    } else {
      for (const int member : stream.members) explain_member(meeting, stream, member);
    }
    if (meeting.waiting.size() <= most_waiting_) return;
    most_waiting_ = meeting.waiting.size();
    missing_where_most_wait_ = missing_;
  }

  /// What a rank has of the number that others wait for. `stream` is the rank's side of it.
  void explain_member(const Meeting& meeting, const CallStream& stream, int rank) {
    if (!known(rank)) {
      missing_.push_back(rank);
      lines_.push_back(fmt::format("  rank {} is missing: it has left no evidence", rank));
      return;
    }
    const StreamState* const mine = find_stream(at(rank), stream);
    const std::int64_t calls = mine == nullptr ? 0 : mine->calls;
    if (calls < meeting.number) {
      missing_.push_back(rank);
      const std::string last =
          calls == 0 ? "none" : "number " + std::to_string(calls) + last_text(*mine);
      lines_.push_back(fmt::format("  rank {} is missing: of these it has begun {}; {}", rank, last,
                                   whereabouts(at(rank))));
      return;
    }
    const CallRecord* const call = find_call(*mine, meeting.number);
    if (call == nullptr) return;  // long past it
    const bool has_own_bytes = meeting.call.kind == "all_to_all";
    const bool is_message = stream.peer >= 0;
    if ((!is_message && call->kind != meeting.call.kind) ||
        (!has_own_bytes && call->bytes != meeting.call.bytes)) {
      differing_.insert(rank);
      lines_.push_back(fmt::format(
          "  mismatch: as number {} rank {} calls {} with {} bytes, where {} calls {} with {} "
          "bytes",
          meeting.number, rank, call->kind, call->bytes, ranks_text({meeting.waiting.front()}),
          meeting.call.kind, meeting.call.bytes));
    }
    if (std::count(meeting.waiting.begin(), meeting.waiting.end(), rank) > 0 || call->finished)
      return;
    lines_.push_back(fmt::format("  rank {} has begun it and does not wait for it; {}", rank,
                                 whereabouts(at(rank))));
  }

  static std::string last_text(const StreamState& stream) {
    const CallRecord* const call = find_call(stream, stream.calls);
    return call == nullptr ? "" : fmt::format(", {} of {} bytes", call->kind, call->bytes);
  }

  /// Who holds up the job: those that wait for nobody themselves, if there are any.
  std::string conclusion(const std::vector<int>& silent, const std::vector<int>& elsewhere) const {
    std::vector<std::string> parts;
    if (!silent.empty()) {
      parts.push_back(ranks_text(silent) + (silent.size() == 1 ? " has" : " have") +
                      " left no evidence: stopped, dead, or without the run's folder");
    }
    if (!elsewhere.empty()) {
      parts.push_back(ranks_text(elsewhere) + (elsewhere.size() == 1 ? " is" : " are") +
                      " in no exchange of a group");
    }
    if (!differing_.empty()) {
      parts.push_back("the calls of " + ranks_text({differing_.begin(), differing_.end()}) +
                      " do not fit those of others");
    }
    if (parts.empty() && !missing_where_most_wait_.empty()) {
      parts.push_back("ranks wait for each other; where most of them wait, missing: " +
                      ranks_text(missing_where_most_wait_));
    }
    if (parts.empty()) parts.emplace_back("nobody is missing: the data of what all wait for is");
    const std::string unlike = who_does_what();
    return join(parts, "; ") + (unlike.empty() ? "" : "; " + unlike);
  }

  /// "rank 3 is in step 4, ranks 0 to 2 are in step 3"; nothing where all do the same.
  std::string who_does_what() const {
    std::map<std::string, std::vector<int>> doing;
    for (int rank = 0; rank < count(); ++rank) {
      if (known(rank)) doing[at(rank).doing].push_back(rank);
    }
    std::vector<std::string> parts;
    for (const auto& [what, who] : doing) parts.push_back(ranks_text(who) + " in " + what);
    return parts.size() < 2 ? "" : join(parts, ", ");
  }

  const EvidenceOfRanks& ranks_;
  std::set<int> differing_;
  std::vector<int> missing_, missing_where_most_wait_;  ///< of one meeting
  std::size_t most_waiting_ = 0;
  std::vector<std::string> lines_;
};

}  // namespace

std::vector<std::string> explain_hang(const EvidenceOfRanks& ranks) {
  std::vector<std::string> lines;
  for (const auto& rank : ranks) {
    if (!rank || rank->limit == 0 || rank->seconds <= rank->limit) continue;
    lines.push_back(fmt::format("{} has taken longer than the {} that fault.step_timeout gives it",
                                rank->doing, seconds_text(rank->limit)));
    break;
  }
  for (std::string& line : Explanation(ranks).make()) lines.push_back(std::move(line));
  return lines;
}

}  // namespace konclave
