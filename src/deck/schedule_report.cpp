#include "deck/schedule_report.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave {
namespace {

constexpr int kMostStages = 32, kMostSlots = 40;
constexpr int kNotYet = -1;

using Kind = PipelineWork::Kind;
using Schedule = std::vector<PipelineWork>;

/// What a stage does, and the slot of time in which it does each piece.
struct Row {
  Schedule schedule;
  std::vector<int> slots;

  int free_at() const { return slots.empty() ? 0 : slots.back() + 1; }
};

/// All stages side by side, each piece as early as its inputs and its stage allow.
class Timetable {
 public:
  explicit Timetable(const PipelineShape& shape)
      : shape_(shape), done_in_(2 * parts() * micro_batches(), kNotYet) {
    for (int stage = 0; stage < shape.stages; ++stage) {
      rows_.push_back({pipeline_schedule(shape, stage), {}});
    }
    for (bool moves = true; moves;) {
      moves = false;
      for (int stage = 0; stage < shape.stages; ++stage) moves = advance(stage) || moves;
    }
    for (const Row& row : rows_) {
      require(row.slots.size() == row.schedule.size(), "a pipeline stage waits for ever");
    }
  }

  const std::vector<Row>& rows() const { return rows_; }
  /// Slots until the last stage is done.
  int slots() const {
    int most = 0;
    for (const Row& row : rows_) most = std::max(most, row.free_at());
    return most;
  }

 private:
  std::size_t parts() const {
    return static_cast<std::size_t>(shape_.stages) * static_cast<std::size_t>(shape_.chunks);
  }
  std::size_t micro_batches() const { return static_cast<std::size_t>(shape_.micro_batches); }
  std::size_t part_of(int stage, const PipelineWork& work) const {
    return static_cast<std::size_t>(work.chunk) * static_cast<std::size_t>(shape_.stages) +
           static_cast<std::size_t>(stage);
  }
  /// The slot in which a part of the way does a micro-batch.
  int& done_in(Kind kind, std::size_t part, int micro_batch) {
    const std::size_t first = kind == Kind::forward ? 0 : parts();
    return done_in_[(first + part) * micro_batches() + static_cast<std::size_t>(micro_batch)];
  }

  /// The first slot for which the inputs are there, or kNotYet. Backward comes after the stage's
  /// own forward in every schedule, so only the neighbour counts.
  int inputs_at(int stage, const PipelineWork& work) {
    const bool is_forward = work.kind == Kind::forward;
    const std::size_t part = part_of(stage, work), end = is_forward ? 0 : parts() - 1;
    if (part == end) return 0;
    const int before = done_in(work.kind, is_forward ? part - 1 : part + 1, work.micro_batch);
    return before == kNotYet ? kNotYet : before + 1;
  }

  /// Places what can be placed; whether that was anything.
  bool advance(int stage) {
    Row& row = rows_[static_cast<std::size_t>(stage)];
    const std::size_t before = row.slots.size();
    while (row.slots.size() < row.schedule.size()) {
      const PipelineWork& work = row.schedule[row.slots.size()];
      const int ready = inputs_at(stage, work);
      if (ready == kNotYet) break;
      row.slots.push_back(std::max(ready, row.free_at()));
      done_in(work.kind, part_of(stage, work), work.micro_batch) = row.slots.back();
    }
    return row.slots.size() > before;
  }

  PipelineShape shape_;
  std::vector<int> done_in_;  ///< by kind, part and micro-batch
  std::vector<Row> rows_;
};

std::string in_words(const ModelPart& part) {
  std::vector<std::string> words;
  if (part.embedding) words.emplace_back("embedding");
  const int last = part.first_layer + part.layers - 1;
  if (part.layers == 1) words.push_back(fmt::format("layer {}", last));
  if (part.layers > 1) words.push_back(fmt::format("layers {}-{}", part.first_layer, last));
  if (part.head) words.emplace_back("head");
  return words.empty() ? "nothing" : join(words, ", ");
}

int most_in_flight(const Schedule& schedule) {
  const std::vector<int> held = slots_in_flight(schedule);
  return *std::max_element(held.begin(), held.end());
}

/// "F3", or with several chunks "F3.1".
std::string cell(const PipelineWork& work, int chunks) {
  const char* kind = work.kind == Kind::forward ? "F" : "B";
  return chunks == 1 ? fmt::format("{}{}", kind, work.micro_batch)
                     : fmt::format("{}{}.{}", kind, work.micro_batch, work.chunk);
}

/// The first `shown` cells of a stage's row.
std::vector<std::string> cells(const Row& row, int chunks, int shown) {
  std::vector<std::string> all(static_cast<std::size_t>(shown), ".");
  for (std::size_t i = 0; i < row.slots.size() && row.slots[i] < shown; ++i) {
    all[static_cast<std::size_t>(row.slots[i])] = cell(row.schedule[i], chunks);
  }
  return all;
}

std::string table_line(const std::string& name, const std::vector<std::string>& cells,
                       std::size_t width) {
  std::string text = fmt::format("#   {:>6} ", name);
  for (const std::string& cell : cells) text += fmt::format(" {:<{}}", cell, width);
  return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
}

/// A line for each stage, those in the middle of many left out.
template <typename Line> std::string stage_lines(int stages, Line&& line) {
  const bool is_short = stages <= kMostStages;
  const int top = is_short ? stages : kMostStages / 2;
  const int bottom = is_short ? stages : stages - kMostStages / 2;
  std::string text;
  for (int stage = 0; stage < top; ++stage) text += line(stage);
  if (!is_short) text += fmt::format("#   {:>6}  {} more\n", "...", bottom - top);
  for (int stage = bottom; stage < stages; ++stage) text += line(stage);
  return text;
}

std::string time_table(const Timetable& times, const PipelineShape& shape) {
  const int shown = std::min(times.slots(), kMostSlots);
  std::vector<std::string> numbers;
  for (int slot = 0; slot < shown; ++slot) numbers.push_back(std::to_string(slot));
  std::size_t width = numbers.back().size();
  std::vector<std::vector<std::string>> rows;
  for (const Row& row : times.rows()) {
    rows.push_back(cells(row, shape.chunks, shown));
    for (const std::string& cell : rows.back()) width = std::max(width, cell.size());
  }
  std::string text = table_line("slot", numbers, width);
  text += stage_lines(shape.stages, [&](int stage) {
    return table_line(std::to_string(stage), rows[static_cast<std::size_t>(stage)], width);
  });
  const int more = times.slots() - shown;
  return more == 0 ? text
                   : text + fmt::format("#   ... {} more slot{}\n", more, more > 1 ? "s" : "");
}

}  // namespace

std::string describe_stage(const PipelineLayout& layout, int stage) {
  std::vector<std::string> chunks;
  for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
    chunks.push_back(in_words(layout.part(stage, chunk)));
  }
  return join(chunks, " | ");
}

std::string schedule_report(const PipelineShape& shape, const PipelineLayout& layout) {
  require(layout.stages() == shape.stages && layout.chunks() == shape.chunks,
          "the layout has other stages or chunks than the schedule");
  const Timetable times(shape);
  const auto row = [&](int stage) -> const Row& {
    return times.rows()[static_cast<std::size_t>(stage)];
  };

  std::string text = "# What each pipeline stage has, and how many slots of activations it holds\n";
  text += fmt::format("#   {:>6}{:>7}  {}\n", "stage", "slots",
                      shape.chunks == 1 ? "part" : "chunks, by |");
  text += stage_lines(shape.stages, [&](int stage) {
    return fmt::format("#   {:>6}{:>7}  {}\n", stage, most_in_flight(row(stage).schedule),
                       describe_stage(layout, stage));
  });

  text += fmt::format(
      "\n# What each stage does when: {} is forward of micro-batch 0{}, B backward\n",
      cell({Kind::forward, 0, 0}, shape.chunks), shape.chunks == 1 ? "" : " through chunk 0");
  text += time_table(times, shape);
  const int busy = static_cast<int>(row(0).schedule.size()), all = times.slots();
  return text + fmt::format("#   bubble: {} of {} slots of a stage are idle, {:.1f}%\n", all - busy,
                            all, 100.0 * (all - busy) / all);
}

}  // namespace konclave
