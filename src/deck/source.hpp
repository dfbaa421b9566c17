#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace konclave::deck {

/// A text that values come from: a deck file, or one argument of the command line.
struct Source {
  std::string name;              ///< as shown to the user
  std::filesystem::path folder;  ///< where relative paths in it start
  std::vector<std::string> lines;
  bool is_argument = false;
  int order = 0;  ///< messages of sources with a lower one come first
};

std::shared_ptr<const Source> make_source(std::string name, std::filesystem::path folder,
                                          std::string_view text, int order);
std::shared_ptr<const Source> make_argument(const std::string& argument, int order);

/// A position in a source, counted from 1; columns are characters, not bytes.
struct Place {
  std::shared_ptr<const Source> source;
  int line = 1, column = 1;

  /// "FILE:LINE", or "command line".
  std::string origin() const;
};

/// A second place that belongs to a complaint.
struct Note {
  Place place;
  std::string text;
};

/// Collects what is wrong with a deck, so that a user sees all of it at once.
class Complaints {
 public:
  void add(Place place, std::string text, std::vector<Note> notes = {});
  bool empty() const { return complaints_.empty(); }
  /// A part could not be read at all: what is missing from the rest is no fault of the user's.
  void set_incomplete() { incomplete_ = true; }
  bool is_incomplete() const { return incomplete_; }
  /// All complaints in the order of their places, with the line of source and a caret:
  ///
  ///     deck.toml:5:9: error: moe.top_k wants an integer, not "two"
  ///         5 | top_k = "two"
  ///           |         ^
  std::string text() const;

 private:
  struct Complaint {
    Place place;
    std::string text;
    std::vector<Note> notes;
  };
  std::vector<Complaint> complaints_;
  bool incomplete_ = false;
};

}  // namespace konclave::deck
