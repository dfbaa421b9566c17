#include "base/error.hpp"
#include "run/hang_report.hpp"

#include <nlohmann/json.hpp>

namespace konclave {

namespace {

nlohmann::json to_json(const CallRecord& call) {
  return {{"kind", call.kind},
          {"bytes", call.bytes},
          {"number", call.number},
          {"finished", call.finished},
          {"seconds", call.seconds}};
}

CallRecord call_of(const nlohmann::json& json) {
  return {json.at("kind"), json.at("bytes"), json.at("number"), json.at("finished"),
          json.at("seconds")};
}

nlohmann::json to_json(const StreamState& stream) {
  nlohmann::json last = nlohmann::json::array();
  for (const CallRecord& call : stream.last) last.push_back(to_json(call));
  return {{"group", stream.stream.group},
          {"members", stream.stream.members},
          {"direction", stream.stream.direction},
          {"peer", stream.stream.peer},
          {"channel", stream.stream.channel},
          {"calls", stream.calls},
          {"last", std::move(last)}};
}

StreamState stream_of(const nlohmann::json& json) {
  StreamState stream{{json.at("group"), json.at("members").get<std::vector<int>>(),
                      json.at("direction"), json.at("peer"), json.at("channel")},
                     json.at("calls"),
                     {}};
  for (const auto& call : json.at("last")) stream.last.push_back(call_of(call));
  return stream;
}

}  // namespace

std::string evidence_json(const RankEvidence& evidence) {
  nlohmann::json streams = nlohmann::json::array(), wait;
  for (const StreamState& stream : evidence.calls.streams) streams.push_back(to_json(stream));
  if (evidence.calls.wait) {
    wait = {{"stream", evidence.calls.wait->stream}, {"call", to_json(evidence.calls.wait->call)}};
  }
  const nlohmann::json all = {{"process", evidence.process},   {"doing", evidence.doing},
                              {"seconds", evidence.seconds},   {"limit", evidence.limit},
                              {"streams", std::move(streams)}, {"wait", std::move(wait)}};
  return all.dump(1) + "\n";
}

RankEvidence read_evidence(const std::string& json) {
  try {
    const auto all = nlohmann::json::parse(json);
    RankEvidence evidence{
        all.at("process"), all.at("doing"), all.at("seconds"), all.at("limit"), {}};
    for (const auto& stream : all.at("streams")) {
      evidence.calls.streams.push_back(stream_of(stream));
    }
    const auto& wait = all.at("wait");
    if (!wait.is_null()) {
      evidence.calls.wait = WaitState{wait.at("stream"), call_of(wait.at("call"))};
      require(evidence.calls.wait->stream < evidence.calls.streams.size(),
              "evidence of a rank waits in a stream that it does not have", ExitCode::io);
    }
    return evidence;
  } catch (const nlohmann::json::exception& error) {
    fail(std::string("evidence of a rank: ") + error.what(), ExitCode::io);
  }
}

}  // namespace konclave
