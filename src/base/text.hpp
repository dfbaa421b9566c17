#pragma once

#include <cstdint>
#include <string>
#include <string_view>
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

/// "12.3 MiB", "512 B".
std::string format_bytes(std::int64_t bytes);

/// "1 h 02 min", "3 min 05 s", "4.2 s".
std::string format_duration(double seconds);

/// Seconds of "90", "2 h 30 min", "45 s"; throws Error(usage) with the accepted forms otherwise.
double parse_duration(std::string_view text);

}  // namespace konclave
