#include "deck/source.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace konclave::deck {
namespace {

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

/// Blanks up to character `column` of `line`; tabs stay, so that the caret lands right.
std::string caret_indent(std::string_view line, int column) {
  std::string indent;
  for (const char byte : line) {
    if (static_cast<int>(indent.size()) + 1 >= column) break;
    const bool continues_a_character = (static_cast<unsigned char>(byte) & 0xc0U) == 0x80U;
    if (!continues_a_character) indent += byte == '\t' ? '\t' : ' ';
  }
  indent.resize(static_cast<std::size_t>(std::max(column, 1) - 1), ' ');
  return indent;
}

std::string message(const Place& place, std::string_view severity, std::string_view text) {
  const Source& source = *place.source;
  return source.is_argument
             ? fmt::format("command line: {}: \"{}\": {}", severity, source.lines.front(), text)
             : fmt::format("{}:{}:{}: {}: {}", source.name, place.line, place.column, severity,
                           text);
}

/// The line of a place with a caret below; "" when the message has it all.
std::string excerpt(const Place& place) {
  const Source& source = *place.source;
  if (source.is_argument || place.line > static_cast<int>(source.lines.size())) return "";
  const std::string& line = source.lines[static_cast<std::size_t>(place.line - 1)];
  return fmt::format("\n{:>5} | {}\n      | {}^", place.line, line,
                     caret_indent(line, place.column));
}

bool is_same(const Place& a, const Place& b) {
  return a.source == b.source && a.line == b.line && a.column == b.column;
}

}  // namespace

std::shared_ptr<const Source> make_source(std::string name, std::filesystem::path folder,
                                          std::string_view text, int order) {
  return std::make_shared<const Source>(
      Source{std::move(name), std::move(folder), split_lines(text), false, order});
}

std::shared_ptr<const Source> make_argument(const std::string& argument, int order) {
  return std::make_shared<const Source>(
      Source{"command line", std::filesystem::path(), {argument}, true, order});
}

std::string Place::origin() const {
  return source->is_argument ? source->name : fmt::format("{}:{}", source->name, line);
}

void Complaints::add(Place place, std::string text, std::vector<Note> notes) {
  complaints_.push_back({std::move(place), std::move(text), std::move(notes)});
}

std::string Complaints::text() const {
  std::vector<Complaint> sorted = complaints_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Complaint& a, const Complaint& b) {
    return std::make_tuple(a.place.source->order, a.place.line, a.place.column) <
           std::make_tuple(b.place.source->order, b.place.line, b.place.column);
  });
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const Complaint& complaint = sorted[i];
    const bool next_shows_it = complaint.notes.empty() && i + 1 < sorted.size() &&
                               is_same(complaint.place, sorted[i + 1].place);
    parts.push_back(message(complaint.place, "error", complaint.text) +
                    (next_shows_it ? "" : excerpt(complaint.place)));
    for (const Note& note : complaint.notes) {
      parts.push_back(message(note.place, "note", note.text) + excerpt(note.place));
    }
  }
  return join(parts, "\n");
}

}  // namespace konclave::deck
