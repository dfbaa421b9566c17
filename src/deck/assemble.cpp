#include "deck/assemble.hpp"

#include "base/error.hpp"
#include "deck/parse.hpp"
#include "deck/spelling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <system_error>

namespace konclave::deck {
namespace {

namespace fs = std::filesystem;

constexpr int kArguments = 1 << 20;  // messages about arguments come after those about files

void merge(Table& into, Table&& from) {
  for (Node& member : from.members) {
    Node* old = find_member(into, member.key);
    if (old == nullptr) {
      into.members.push_back(std::move(member));
    } else if (Table* old_table = std::get_if<Table>(&old->value);
               old_table != nullptr && member.as<Table>() != nullptr) {
      merge(*old_table, std::get<Table>(std::move(member.value)));
    } else {
      *old = std::move(member);
    }
  }
}

/// Reads decks and what they include, each file as often as it is included.
class Includes {
 public:
  explicit Includes(Complaints& complaints) : complaints_(complaints) {}

  Table load(const std::shared_ptr<const Source>& source) {
    open_.push_back(identity(*source));
    Table own = std::get<Table>(parse_toml(source, complaints_).value);
    Table merged;
    for (const Node& file : take_include(own)) {
      const std::string* path = file.as<std::string>();
      if (path == nullptr) {
        complaints_.add(file.place, "include wants a list of paths, not " + toml_text(file));
      } else {
        merge(merged, load_included(*path, file.place));
      }
    }
    merge(merged, std::move(own));
    open_.pop_back();
    return merged;
  }

 private:
  /// What `include` at the top lists; the key itself goes.
  static std::vector<Node> take_include(Table& table) {
    const Node* include = find_member(table, "include");
    if (include == nullptr) return {};
    const List* list = include->as<List>();
    std::vector<Node> files = list != nullptr ? list->elements : std::vector<Node>{*include};
    std::erase_if(table.members, [](const Node& member) { return member.key == "include"; });
    return files;
  }

  Table load_included(const std::string& path, const Place& place) {
    const fs::path file = (place.source->folder / path).lexically_normal();
    try {
      const auto source =
          make_source(file.string(), file.parent_path(), read_text_file(file), ++count_);
      if (std::find(open_.begin(), open_.end(), identity(*source)) == open_.end()) {
        return load(source);
      }
      complaints_.add(place, fmt::format("{} includes itself in the end", file.string()));
    } catch (const Error& error) {
      complaints_.add(place, error.what());
      complaints_.set_incomplete();
    }
    return {};
  }

  /// One name for a file, however its path is written.
  static fs::path identity(const Source& source) {
    std::error_code none;
    return fs::weakly_canonical(source.name, none);
  }

  Complaints& complaints_;
  std::vector<fs::path> open_;  ///< the deck being read and those that include it
  int count_ = 0;
};

/// The full key of an argument's value.
std::string key_of(const Node& root) {
  std::string key;
  const Node* node = &root;
  while (node != nullptr && node->as<Table>() != nullptr &&
         node->as<Table>()->members.size() == 1) {
    node = &node->as<Table>()->members.front();
    key += (key.empty() ? "" : ".") + node->key;
  }
  return key;
}

}  // namespace

std::string read_text_file(const fs::path& file) {
  std::error_code none;
  require(!fs::is_directory(file, none),
          fmt::format("cannot read {}: it is a folder", file.string()), ExitCode::input);
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  require(stream.is_open(), fmt::format("cannot read {}: {}", file.string(), std::strerror(errno)),
          ExitCode::input);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Node assemble(const std::shared_ptr<const Source>& source,
              const std::vector<std::string>& overrides, Complaints& complaints) {
  Table table = Includes(complaints).load(source);
  std::map<std::string, std::string> seen;
  int order = kArguments;
  for (const std::string& argument : overrides) {
    Node root = parse_argument(argument, order++, complaints);
    const auto [before, is_new] = seen.emplace(key_of(root), argument);
    if (!is_new && !before->first.empty()) {
      complaints.add(root.place, fmt::format("{} is given twice, before as \"{}\"", before->first,
                                             before->second));
    }
    merge(table, std::get<Table>(std::move(root.value)));
  }
  return {std::move(table), {source}, {}};
}

}  // namespace konclave::deck
