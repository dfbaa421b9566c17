#include "run/hang_text.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

namespace konclave {

namespace {

/// Ranks that get a line; the files have all.
constexpr std::size_t kMostRanks = 64;

std::string last_call(const CallStream& stream, const CallRecord& call) {
  std::string name = stream.group;
  if (stream.peer >= 0) name += fmt::format(" {} rank {}", stream.direction, stream.peer);
  return fmt::format("{}: {}, {}, {}, {} {} ago", name, call.number, call.kind, call.bytes,
                     call.finished ? "ended" : "begun", seconds_text(call.seconds));
}

}  // namespace

std::string seconds_text(double seconds) { return fmt::format("{:.1f} s", seconds); }

std::string ranks_text(const std::vector<int>& ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + rank_list(ranks);
}

std::string call_text(const CallStream& stream, const CallRecord& call) {
  std::string text = fmt::format("{} number {}", call.kind, call.number);
  if (stream.peer >= 0) text += fmt::format(" {} rank {}", stream.direction, stream.peer);
  text += fmt::format(" {} group {}", stream.peer >= 0 ? "in" : "of", stream.group);
  if (stream.channel > 0) text += fmt::format(", channel {}", stream.channel);
  return text + fmt::format(" ({} bytes)", call.bytes);
}

const CallStream& stream_of_wait(const RankEvidence& rank) {
  return rank.calls.streams[rank.calls.wait->stream].stream;
}

std::string whereabouts(const RankEvidence& rank) {
  if (rank.calls.wait) {
    return fmt::format("it waits in {} since {}",
                       call_text(stream_of_wait(rank), rank.calls.wait->call),
                       seconds_text(rank.calls.wait->call.seconds));
  }
  const StreamState* latest = nullptr;
  for (const StreamState& stream : rank.calls.streams) {
    if (stream.last.empty()) continue;
    if (latest == nullptr || stream.last.back().seconds < latest->last.back().seconds) {
      latest = &stream;
    }
  }
  std::string text =
      fmt::format("it is in no exchange of a group but elsewhere in {}, which it began {} ago",
                  rank.doing, seconds_text(rank.seconds));
  if (latest == nullptr) return text;
  const CallRecord& call = latest->last.back();
  return text + fmt::format("; its last was {}, {} {} ago", call_text(latest->stream, call),
                            call.finished ? "ended" : "begun and not yet waited for",
                            seconds_text(call.seconds));
}

const CallRecord* find_call(const StreamState& stream, std::int64_t number) {
  for (const CallRecord& call : stream.last) {
    if (call.number == number) return &call;
  }
  return nullptr;
}

std::string rank_list(const std::vector<int>& ranks) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (end - i > 2) {
      parts.push_back(fmt::format("{} to {}", ranks[i], ranks[end - 1]));
      i = end;
    } else {
      parts.push_back(std::to_string(ranks[i++]));
    }
  }
  return join(parts, ", ");
}

std::vector<std::string> last_calls(const EvidenceOfRanks& ranks) {
  std::vector<std::string> lines = {
      "last communications of each rank (group: number, kind, bytes):"};
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    if (!ranks[rank]) continue;
    if (lines.size() > kMostRanks) {
      lines.emplace_back("  and so on: each rank's file has its own");
      break;
    }
    std::vector<std::string> calls;
    for (const StreamState& stream : ranks[rank]->calls.streams) {
      const CallRecord* const call = find_call(stream, stream.calls);
      if (call != nullptr) calls.push_back(last_call(stream.stream, *call));
    }
    lines.push_back(fmt::format("  rank {} ({}), {} in {}: {}", rank, ranks[rank]->process,
                                seconds_text(ranks[rank]->seconds), ranks[rank]->doing,
                                calls.empty() ? "none" : join(calls, "; ")));
  }
  return lines;
}

}  // namespace konclave
