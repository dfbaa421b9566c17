#include "run/phases.hpp"

#include "base/error.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <string_view>

namespace konclave {

namespace {

constexpr std::string_view kOther = "other";

void add(std::vector<Phase>& phases, std::string_view name, double seconds) {
  const auto found = std::find_if(phases.begin(), phases.end(),
                                  [&](const Phase& phase) { return phase.name == name; });
  if (found != phases.end()) {
    found->seconds += seconds;
  } else {
    phases.push_back({std::string(name), seconds});
  }
}

/// "attention" of "layer 3 attention".
std::string kind_of(const TraceEvent& event) {
  if (event.category != "layer") return event.name;
  const std::size_t number = event.name.find_first_of("0123456789");
  const std::size_t behind = event.name.find(' ', number == std::string::npos ? 0 : number);
  return behind == std::string::npos ? event.name : event.name.substr(behind + 1);
}

double seconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }

/// A part that contains others is what is left of it.
void name_rests(std::vector<Phase>& phases) {
  for (Phase& phase : phases) {
    const std::string inner = phase.name + ": ";
    const bool contains = std::any_of(phases.begin(), phases.end(), [&](const Phase& other) {
      return other.name.starts_with(inner);
    });
    if (contains) phase.name += ": rest";
  }
}

/// What this thread computed, outer events before those within them.
std::vector<const TraceEvent*> computed(const std::vector<TraceEvent>& events) {
  std::vector<const TraceEvent*> ordered;
  for (const TraceEvent& event : events) {
    if (event.row == "compute") ordered.push_back(&event);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const TraceEvent* a, const TraceEvent* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
  });
  return ordered;
}

/// An event that has begun, with the time that is not within another.
struct Open {
  const TraceEvent* event;
  std::string path;
  std::int64_t own;
};

}  // namespace

std::vector<Phase> phases_of(const std::vector<TraceEvent>& events, int steps) {
  const std::vector<const TraceEvent*> ordered = computed(events);
  const auto is_step = [](const TraceEvent* event) { return event->category == "step"; };
  const auto all = std::count_if(ordered.begin(), ordered.end(), is_step);
  require(all >= steps && steps > 0, "a trace of fewer steps than wanted");
  auto at = ordered.begin();
  for (auto passed = steps - all; passed < 0 || !is_step(*at); ++at) {
    if (is_step(*at)) ++passed;
  }

  std::vector<Phase> phases;
  std::vector<Open> open;
  const auto close = [&] {
    add(phases, open.back().path, seconds(open.back().own) / steps);
    open.pop_back();
  };
  for (; at != ordered.end(); ++at) {
    const TraceEvent& event = **at;
    while (!open.empty() && event.begin >= open.back().event->end) close();
    if (open.empty() && !is_step(&event)) continue;  // between two steps
    std::string path(kOther);
    if (!open.empty()) {
      path = open.size() == 1 ? kind_of(event) : open.back().path + ": " + kind_of(event);
      open.back().own -= event.end - event.begin;
    }
    open.push_back({&event, path, event.end - event.begin});
  }
  while (!open.empty()) close();
  name_rests(phases);
  return phases;
}

std::vector<Phase> mean_phases(const std::vector<std::vector<Phase>>& per_rank) {
  std::vector<Phase> mean;
  for (const std::vector<Phase>& phases : per_rank) {
    for (const Phase& phase : phases) {
      add(mean, phase.name, phase.seconds / static_cast<double>(per_rank.size()));
    }
  }
  return mean;
}

std::vector<Phase> mean_phases(const Communicator& world, const std::vector<Phase>& mine) {
  nlohmann::json text = nlohmann::json::array();
  for (const Phase& phase : mine)
    text.push_back({{"name", phase.name}, {"seconds", phase.seconds}});
  std::vector<std::vector<Phase>> per_rank;
  for (const std::string& other : world.gather(text.dump(), /*root=*/0)) {
    per_rank.emplace_back();
    for (const nlohmann::json& phase : nlohmann::json::parse(other)) {
      per_rank.back().push_back({phase.at("name"), phase.at("seconds")});
    }
  }
  return mean_phases(per_rank);
}

}  // namespace konclave
