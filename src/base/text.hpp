#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace konclave {

/// Optimal-string-alignment distance: insertions, deletions, substitutions and swaps of
/// neighbours each count one.
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, or "" when none is near enough to be meant (a third of it).
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// True when `text` matches the shell pattern `glob` (only * and ? are special).
bool matches_glob(std::string_view glob, std::string_view text);

std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// "a, b and c" with the conjunction "and".
std::string enumerate(std::vector<std::string> parts, std::string_view conjunction);

/// "1, 2 or 4".
template <std::integral Int> std::string any_of(const std::vector<Int>& numbers) {
  std::vector<std::string> words;
  for (const Int number : numbers) words.push_back(std::to_string(number));
  return enumerate(std::move(words), "or");
}

/// "12.3 MiB", "512 B".
std::string format_bytes(std::int64_t bytes);

/// "1 h 02 min", "3 min 05 s", "4.2 s".
std::string format_duration(double seconds);

/// Seconds of "90", "2 h 30 min", "45 s"; throws Error(usage) with the accepted forms otherwise.
double parse_duration(std::string_view text);

}  // namespace konclave
