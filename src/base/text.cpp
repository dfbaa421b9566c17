#include "base/text.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace konclave {

int edit_distance(std::string_view a, std::string_view b) {
  const std::size_t columns = b.size() + 1;
  std::vector<int> table((a.size() + 1) * columns);
  const auto at = [&](std::size_t i, std::size_t j) -> int& { return table[i * columns + j]; };
  for (std::size_t i = 0; i <= a.size(); ++i) at(i, 0) = static_cast<int>(i);
  for (std::size_t j = 0; j <= b.size(); ++j) at(0, j) = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = at(i - 1, j - 1) + (a[i - 1] == b[j - 1] ? 0 : 1);
      int best = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) best = std::min(best, at(i - 2, j - 2) + 1);
      at(i, j) = best;
    }
  }
  return at(a.size(), b.size());
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string found;
  int best = std::max<int>(1, static_cast<int>(word.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      found = candidate;
    }
  }
  return found;
}

bool matches_glob(std::string_view glob, std::string_view text) {
  if (glob.empty()) return text.empty();
  if (glob.front() == '*') {
    for (std::size_t skip = 0; skip <= text.size(); ++skip) {
      if (matches_glob(glob.substr(1), text.substr(skip))) return true;
    }
    return false;
  }
  if (text.empty() || (glob.front() != '?' && glob.front() != text.front())) return false;
  return matches_glob(glob.substr(1), text.substr(1));
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) text += separator;
    text += parts[i];
  }
  return text;
}

std::string enumerate(std::vector<std::string> parts, std::string_view conjunction) {
  if (parts.size() < 2) return join(parts, "");
  const std::string last = std::move(parts.back());
  parts.pop_back();
  return join(parts, ", ") + " " + std::string(conjunction) + " " + last;
}

std::string format_bytes(std::int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string format_duration(double seconds) {
  char text[48];
  const long whole = std::lround(seconds);
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%ld h %02ld min", whole / 3600, whole % 3600 / 60);
  } else if (whole >= 60) {
    std::snprintf(text, sizeof text, "%ld min %02ld s", whole / 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%.1f s", seconds);
  }
  return text;
}

double parse_duration(std::string_view text) {
  static const std::map<std::string, double> kUnits = {
      {"", 1}, {"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
  const std::string copy(text);
  const char* rest = copy.c_str();
  double total = 0;
  int terms = 0, bare = 0;  // a number without a unit stands alone
  bool good = true;
  while (good) {
    while (std::isspace(static_cast<unsigned char>(*rest))) ++rest;
    if (*rest == '\0') break;
    char* after = nullptr;
    const double value = std::strtod(rest, &after);
    good = after != rest && value >= 0 && std::isfinite(value);
    while (std::isspace(static_cast<unsigned char>(*after))) ++after;
    std::string unit;
    while (std::isalpha(static_cast<unsigned char>(*after))) unit += *after++;
    const auto found = kUnits.find(unit);
    good = good && found != kUnits.end();
    if (good) total += value * found->second;
    ++terms;
    bare += unit.empty() ? 1 : 0;
    rest = after;
  }
  require(good && terms > 0 && (bare == 0 || terms == 1),
          "'" + copy + "' is no duration; write seconds or units, as in \"2 h 30 min\" or \"90 s\"",
          ExitCode::usage);
  return total;
}

}  // namespace konclave
