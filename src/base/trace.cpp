#include "base/trace.hpp"

#include "base/text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <map>

namespace konclave {

namespace {

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

/// With all digits of ns, as a double has not.
std::string microseconds(std::int64_t ns) {
  const std::string digits = std::to_string(ns % 1000);
  return std::to_string(ns / 1000) + "." + std::string(3 - digits.size(), '0') + digits;
}

std::string json_of(const TraceValue& value) {
  return std::visit([](const auto& held) { return nlohmann::json(held).dump(); }, value);
}

/// What is shown for a process (thread < 0) or a thread of it.
std::string metadata(const char* key, int rank, int thread, const std::string& argument) {
  return R"({"ph": "M", "name": ")" + std::string(key) + R"(", "pid": )" + std::to_string(rank) +
         (thread < 0 ? "" : R"(, "tid": )" + std::to_string(thread)) + R"(, "args": {)" + argument +
         "}}";
}

std::string json_of(const TraceEvent& event, int rank, int thread) {
  std::vector<std::string> arguments;
  for (const auto& [key, value] : event.arguments) {
    arguments.push_back(quoted(key) + ": " + json_of(value));
  }
  return R"({"ph": "X", "name": )" + quoted(event.name) + R"(, "cat": )" + quoted(event.category) +
         R"(, "pid": )" + std::to_string(rank) + R"(, "tid": )" + std::to_string(thread) +
         R"(, "ts": )" + microseconds(event.begin) + R"(, "dur": )" +
         microseconds(event.end - event.begin) + R"(, "args": {)" + join(arguments, ", ") + "}}";
}

using Events = std::vector<const TraceEvent*>;

/// A row's events as few threads, on each of which any two are one within the other or apart.
std::vector<Events> threads_of(Events events) {
  std::stable_sort(events.begin(), events.end(), [](const TraceEvent* a, const TraceEvent* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
  });
  std::vector<Events> threads;
  std::vector<std::vector<std::int64_t>> open;  // for each thread the ends of those under way
  for (const TraceEvent* event : events) {
    std::size_t thread = 0;
    for (; thread < threads.size(); ++thread) {
      std::vector<std::int64_t>& ends = open[thread];
      while (!ends.empty() && ends.back() <= event->begin) ends.pop_back();
      if (ends.empty() || event->end <= ends.back()) break;
    }
    if (thread == threads.size()) threads.emplace_back(), open.emplace_back();
    threads[thread].push_back(event);
    open[thread].push_back(event->end);
  }
  return threads;
}

}  // namespace

std::int64_t Trace::now() const {
  const auto passed = Steady::now() - steady_start_;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(system_start_.time_since_epoch() +
                                                              passed)
      .count();
}

void Trace::add(TraceEvent event) {
  if (recording_) events_.push_back(std::move(event));
}

std::string Trace::json_events(int rank) const {
  std::map<std::string, Events> rows;
  for (const TraceEvent& event : events_) rows[event.row].push_back(&event);
  std::vector<std::string> objects = {
      metadata("process_name", rank, -1, R"("name": "rank )" + std::to_string(rank) + '"'),
      metadata("process_sort_index", rank, -1, R"("sort_index": )" + std::to_string(rank))};
  int thread = 0;
  for (const auto& [row, of_row] : rows) {
    for (const Events& of_thread : threads_of(of_row)) {
      objects.push_back(metadata("thread_name", rank, thread, R"("name": )" + quoted(row)));
      objects.push_back(metadata("thread_sort_index", rank, thread,
                                 R"("sort_index": )" + std::to_string(thread)));
      for (const TraceEvent* event : of_thread) objects.push_back(json_of(*event, rank, thread));
      ++thread;
    }
  }
  return join(objects, ",\n");
}

std::string trace_json(const std::vector<std::string>& per_rank) {
  return "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n" + join(per_rank, ",\n") + "\n]}\n";
}

TraceSpan::TraceSpan(Trace* trace, std::string_view name, std::string_view category,
                     std::string_view row)
    : trace_(trace) {
  if (trace_ == nullptr || !trace_->recording()) return;
  event_ = {std::string(name), std::string(category), std::string(row), trace_->now(), 0, {}};
}

TraceSpan::~TraceSpan() {
  if (!event_) return;
  event_->end = trace_->now();
  trace_->add(*std::move(event_));
}

void TraceSpan::argument(std::string_view key, TraceValue value) {
  if (event_) event_->arguments.emplace_back(key, std::move(value));
}

}  // namespace konclave
