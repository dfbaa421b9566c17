#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace konclave {

using TraceValue = std::variant<std::int64_t, double, std::string>;
using TraceArgument = std::pair<std::string, TraceValue>;

/// Something that this rank did from one moment to another, in ns of Trace::now.
struct TraceEvent {
  std::string name, category;
  std::string row;  ///< "compute", or the group of a communication
  std::int64_t begin = 0, end = 0;
  std::vector<TraceArgument> arguments;
};

/// What one rank does when, for a picture of it. Collects while it records; while it does not,
/// everything is left out and costs nothing. Used by the thread that computes.
class Trace {
 public:
  bool recording() const { return recording_; }
  void set_recording(bool recording) { recording_ = recording; }

  /// ns since 1970 by the system's clock, so that the ranks of a job line up as well as their
  /// hosts' clocks do; it goes on from the time of construction without jumps.
  std::int64_t now() const;
  /// Kept if it records now.
  void add(TraceEvent event);
  const std::vector<TraceEvent>& events() const { return events_; }

  /// The events in Chrome's trace-event format, JSON objects joined by commas: the rank is a
  /// process, and each row a thread. On a thread an event may only be within another, so those that
  /// overlap otherwise get more threads of the row's name. The threads of a rank are in the
  /// alphabetical order of rows.
  std::string json_events(int rank) const;

 private:
  using System = std::chrono::system_clock;
  using Steady = std::chrono::steady_clock;

  bool recording_ = false;
  System::time_point system_start_ = System::now();
  Steady::time_point steady_start_ = Steady::now();
  std::vector<TraceEvent> events_;
};

/// The file that chrome://tracing and Perfetto open, of what json_events gave on each rank.
std::string trace_json(const std::vector<std::string>& per_rank);

/// An event as long as this object. Nothing when there is no trace or it does not record, at the
/// begin or at the end.
class TraceSpan {
 public:
  TraceSpan(Trace* trace, std::string_view name, std::string_view category,
            std::string_view row = "compute");
  ~TraceSpan();
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

  void argument(std::string_view key, TraceValue value);

 private:
  Trace* trace_;
  std::optional<TraceEvent> event_;
};

}  // namespace konclave
