#include "deck/parse.hpp"

#include "base/text.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <cctype>
#include <optional>
#include <string_view>

namespace konclave::deck {
namespace {

/// toml++ stops at the first repeated key. It is renamed with this mark, the text parsed again, and
/// the complaint made when the tree is walked: then the first one's place is known as well.
constexpr std::string_view kRepeated = "--repeated-";
constexpr int kMostRepeats = 100;

struct Walk {
  std::shared_ptr<const Source> source;
  Complaints& complaints;

  Place place(const toml::source_region& region) const {
    return {source, static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
  }

  Table table(const toml::table& from) const {
    Table members;
    for (const auto& [key, value] : from) {
      Node member = node(value);
      member.key = std::string(key.str());
      member.key_place = place(key.source());
      members.members.push_back(std::move(member));
    }
    complain_about_repeats(members);
    return members;
  }

  void complain_about_repeats(Table& table) const {
    const std::vector<Node> members = std::move(table.members);
    table.members.clear();
    for (const Node& member : members) {  // "top_k" comes before "top_k--repeated-0"
      const std::string name = member.key.substr(0, member.key.find(kRepeated));
      const Node* first = find_member(table, name);
      if (first == nullptr) {
        table.members.push_back(member);
      } else {
        complaints.add(member.key_place, fmt::format("repeated key {}", name),
                       {{first->key_place, "it was given here before"}});
      }
    }
  }

  Node node(const toml::node& from) const {
    Node to{Date{}, place(from.source()), {}};
    from.visit([&](const auto& value) {
      using Kind = std::decay_t<decltype(value)>;
      if constexpr (toml::is_table<Kind>) {
        to.value = table(value);
      } else if constexpr (toml::is_array<Kind>) {
        List list;
        for (const toml::node& element : value) list.elements.push_back(node(element));
        to.value = std::move(list);
      } else if constexpr (toml::is_boolean<Kind> || toml::is_integer<Kind> ||
                           toml::is_floating_point<Kind> || toml::is_string<Kind>) {
        to.value = value.get();
      }
    });
    return to;
  }
};

/// Renames the repeated key that `error` is about in its line, or gives false.
bool rename_repeated(std::vector<std::string>& lines, const toml::parse_error& error, int count) {
  const std::string_view what = error.description();
  if (what.find("cannot redefine existing") == std::string_view::npos) return false;
  std::string& line = lines[error.source().begin.line - 1];
  const std::size_t column = error.source().begin.column - 1;
  const bool is_header = line.find_first_not_of(" \t") == column && line[column] == '[';
  std::size_t end = is_header ? line.find(']', column) : line.rfind('=', column);
  if (end == std::string::npos || end == 0) return false;
  end = line.find_last_not_of(" \t", end - 1) + 1;
  line.insert(end, fmt::format("{}{}", kRepeated, count));
  return true;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// What toml++ says without its account of what it was doing, and a hint at the usual slip.
std::string syntax_message(const toml::parse_error& error, const std::string& line) {
  std::string_view what = error.description();
  const std::size_t colon = what.find(": ");
  if (what.starts_with("Error while") && colon != std::string_view::npos) {
    what.remove_prefix(colon + 2);
  }
  const std::string_view value = trimmed(std::string_view(line).substr(line.find('=') + 1));
  const bool is_bare_word =
      !value.empty() && std::isalpha(static_cast<unsigned char>(value[0])) != 0;
  return fmt::format("syntax: {}{}", what, is_bare_word ? " (strings need quotes)" : "");
}

std::optional<toml::table> try_parse(const std::string& text) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error&) {
    return std::nullopt;
  }
}

/// The value of an argument, with the place of the argument everywhere.
Node argument_value(const std::string& text, const Walk& walk, const Place& place) {
  const std::optional<toml::table> parsed = try_parse("value = " + text);
  Node value{text, place, {}};
  if (parsed && parsed->size() == 1) {
    value = walk.node(*parsed->get("value"));
  } else if (!text.empty() && std::string_view("[{\"'").find(text.front()) != std::string::npos) {
    walk.complaints.add(place,
                        "this is no TOML value; a shell takes quotes away, so put the whole "
                        "argument in single quotes, as in 'data.files=[\"a.txt\", \"b.txt\"]'");
  }
  value.raw = text;
  return value;
}

}  // namespace

Node parse_toml(const std::shared_ptr<const Source>& source, Complaints& complaints) {
  const Walk walk{source, complaints};
  std::vector<std::string> lines = source->lines;
  for (int repeats = 0;; ++repeats) {
    try {
      return {walk.table(toml::parse(join(lines, "\n"))), {source}, {}};
    } catch (const toml::parse_error& error) {
      if (repeats < kMostRepeats && rename_repeated(lines, error, repeats)) continue;
      complaints.add(walk.place(error.source()),
                     syntax_message(error, lines[error.source().begin.line - 1]));
      complaints.set_incomplete();
      return {Table{}, {source}, {}};
    }
  }
}

Node parse_argument(const std::string& argument, int order, Complaints& complaints) {
  const std::shared_ptr<const Source> source = make_argument(argument, order);
  const Place place{source};
  Node root{Table{}, place, {}};
  const std::size_t equals = argument.find('=');
  const std::string_view path = trimmed(std::string_view(argument).substr(0, equals));
  if (equals == std::string::npos || path.empty()) {
    complaints.add(place, "write section.key=value");
    return root;
  }
  const std::string text(trimmed(std::string_view(argument).substr(equals + 1)));
  Node value = argument_value(text, {source, complaints}, place);
  std::size_t end = path.size();
  while (true) {  // wraps the value in one table for each part of the path, the last one first
    const std::size_t dot = path.substr(0, end).rfind('.');
    const std::size_t begin = dot == std::string_view::npos ? 0 : dot + 1;
    value.key = std::string(path.substr(begin, end - begin));
    value.key_place = place;
    Table table;
    table.members.push_back(std::move(value));
    value = Node{std::move(table), place, {}};
    if (begin == 0) return value;
    end = dot;
  }
}

}  // namespace konclave::deck
