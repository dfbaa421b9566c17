#include "run/hardware.hpp"

#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

namespace konclave {

namespace {

constexpr std::size_t kRanksInTable = 16, kHostsInTable = 16;

std::string counted(std::size_t count, const std::string& noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

/// "0-3,8" of ascending numbers; the middle of a long list is left out: "0,2,4,...,30".
std::string ranges(const std::vector<int>& numbers) {
  constexpr std::size_t kShown = 4;
  std::vector<std::string> parts;
  for (std::size_t first = 0, last = 0; first < numbers.size(); first = ++last) {
    while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
    parts.push_back(first == last ? fmt::format("{}", numbers[first])
                                  : fmt::format("{}-{}", numbers[first], numbers[last]));
  }
  if (parts.size() > kShown) {
    parts.erase(parts.begin() + kShown - 1, parts.end() - 1);
    parts.insert(parts.end() - 1, "...");
  }
  return join(parts, ",");
}

std::vector<int> merged(const std::vector<int>& a, const std::vector<int>& b) {
  std::vector<int> all;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(all));
  return all;
}

struct Host {
  std::string name;
  std::vector<int> ranks;
};

/// The hosts in the order of their first ranks.
std::vector<Host> hosts_of(const std::vector<RankPlace>& places) {
  std::vector<Host> hosts;
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    const auto [entry, is_new] = index.try_emplace(places[rank].host, hosts.size());
    if (is_new) hosts.push_back({places[rank].host, {}});
    hosts[entry->second].ranks.push_back(static_cast<int>(rank));
  }
  return hosts;
}

// --- The map -----------------------------------------------------------------------------------

using Row = std::vector<std::string>;

std::vector<std::string> aligned(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::vector<std::string> lines;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += i + 1 < row.size() ? fmt::format("  {:<{}}", row[i], widths[i]) : "  " + row[i];
    }
    lines.push_back(line);
  }
  return lines;
}

std::string cores_cell(const RankPlace& place) {
  if (place.cores.empty()) return "unknown";
  return fmt::format("{} (of {}{})", ranges(place.cores), place.host_cores,
                     place.bound ? "" : ", not bound");
}

std::string numa_cell(const RankPlace& place) {
  return place.numa.empty() ? "unknown" : ranges(place.numa);
}

std::string device_cell(const RankPlace& place) {
  return place.device.empty() ? "host threads" : place.device;
}

std::vector<Row> rank_rows(const std::vector<RankPlace>& places) {
  std::vector<Row> rows{{"rank", "host", "cores", "NUMA", "threads", "kernels"}};
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    const RankPlace& place = places[rank];
    rows.push_back({fmt::format("{}", rank), place.host, cores_cell(place), numa_cell(place),
                    fmt::format("{}", place.threads), device_cell(place)});
  }
  return rows;
}

/// What the ranks of a host have together; unbound when one of them is.
RankPlace place_of(const Host& host, const std::vector<RankPlace>& places) {
  RankPlace together = places[static_cast<std::size_t>(host.ranks.front())];
  for (const int rank : host.ranks) {
    const RankPlace& place = places[static_cast<std::size_t>(rank)];
    together.cores = merged(together.cores, place.cores);
    together.numa = merged(together.numa, place.numa);
    together.bound = together.bound && place.bound;
  }
  return together;
}

Row host_row(const Host& host, const std::vector<RankPlace>& places) {
  std::set<int> threads;
  for (const int rank : host.ranks) threads.insert(places[static_cast<std::size_t>(rank)].threads);
  const RankPlace together = place_of(host, places);
  return {host.name,
          ranges(host.ranks),
          cores_cell(together),
          numa_cell(together),
          ranges({threads.begin(), threads.end()}) + " a rank",
          device_cell(together)};
}

/// Hosts with as many ranks each and the same cells otherwise become one row.
std::vector<Row> folded_rows(const std::vector<Host>& hosts, const std::vector<RankPlace>& places) {
  std::vector<Row> rows;
  std::vector<std::size_t> alike;
  std::map<Row, std::size_t> index;
  for (const Host& host : hosts) {
    Row row = host_row(host, places);
    row[1] = fmt::format("{} a host", host.ranks.size());
    const auto [entry, is_new] = index.try_emplace(Row(row.begin() + 1, row.end()), rows.size());
    if (is_new) {
      rows.push_back(row);
      alike.push_back(0);
    } else {
      ++alike[entry->second];
    }
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (alike[i] > 0) rows[i].front() += fmt::format(" and {} more", alike[i]);
  }
  return rows;
}

std::vector<Row> host_rows(const std::vector<Host>& hosts, const std::vector<RankPlace>& places) {
  std::vector<Row> rows{{"host", "ranks", "cores", "NUMA", "threads", "kernels"}};
  if (hosts.size() > kHostsInTable) {
    const std::vector<Row> folded = folded_rows(hosts, places);
    rows.insert(rows.end(), folded.begin(), folded.end());
  } else {
    for (const Host& host : hosts) rows.push_back(host_row(host, places));
  }
  return rows;
}

// --- The warnings ------------------------------------------------------------------------------

/// The ranks of one host whose cores are known.
struct Neighbours {
  const std::vector<RankPlace>& places;
  const std::string& host;
  std::vector<int> ranks;

  const RankPlace& place(int rank) const { return places[static_cast<std::size_t>(rank)]; }
};

/// Cores that a rank keeps busy: one for each thread, but no more than it is bound to. A rank with
/// too many threads is a case of its own.
std::size_t cores_wanted(const RankPlace& place) {
  const auto threads = static_cast<std::size_t>(place.threads);
  return place.bound ? std::min(threads, place.cores.size()) : threads;
}

std::size_t cores_wanted(const Neighbours& here, const std::vector<int>& ranks) {
  std::size_t wanted = 0;
  for (const int rank : ranks) wanted += cores_wanted(here.place(rank));
  return wanted;
}

int most_threads(const Neighbours& here, const std::vector<int>& ranks) {
  int most = 1;
  for (const int rank : ranks) most = std::max(most, here.place(rank).threads);
  return most;
}

std::string bind_option(int threads) {
  return fmt::format("mpirun --map-by slot:PE={} --bind-to core", threads);
}

std::string named_ranks(const std::vector<int>& ranks) {
  return ranks.size() == 2 ? fmt::format("ranks {} and {}", ranks[0], ranks[1])
                           : "ranks " + ranges(ranks);
}

/// A rank with more threads than cores it is bound to.
void find_narrow_ranks(const Neighbours& here, std::vector<std::string>& found) {
  for (const int rank : here.ranks) {
    const RankPlace& place = here.place(rank);
    const std::size_t cores = place.cores.size();
    if (!place.bound || static_cast<std::size_t>(place.threads) <= cores) continue;
    std::string text = fmt::format(
        "rank {} on {} runs {} threads and is bound to {} ({}), where they take turns; set "
        "OMP_NUM_THREADS={}",
        rank, here.host, place.threads, counted(cores, "core"), ranges(place.cores), cores);
    if (place.threads <= place.host_cores) {
      text += ", or give each rank more cores (" + bind_option(place.threads) + ")";
    }
    found.push_back(text);
  }
}

/// The sets of cores that ranks are bound to, and the unions of those that overlap; small ones
/// first.
std::vector<std::vector<int>> shared_areas(const Neighbours& here) {
  std::set<std::vector<int>> areas;
  for (const int rank : here.ranks) {
    if (here.place(rank).bound) areas.insert(here.place(rank).cores);
  }
  std::vector<std::vector<int>> islands;  // no two of them share a core
  for (std::vector<int> area : areas) {
    std::vector<std::vector<int>> apart;
    for (const std::vector<int>& island : islands) {
      const std::vector<int> both = merged(area, island);
      if (both.size() == area.size() + island.size()) {
        apart.push_back(island);
      } else {
        area = both;
      }
    }
    apart.push_back(area);
    islands = std::move(apart);
  }
  areas.insert(islands.begin(), islands.end());
  std::vector<std::vector<int>> all(areas.begin(), areas.end());
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return a.size() < b.size(); });
  return all;
}

std::string crowd_text(const Neighbours& here, const std::vector<int>& area,
                       const std::vector<int>& ranks) {
  std::string text = fmt::format("{} on {} are bound to ", named_ranks(ranks), here.host);
  text += area.size() == 1 ? fmt::format("the same core ({})", area.front())
                           : fmt::format("{} cores together ({}) and have work for {}", area.size(),
                                         ranges(area), cores_wanted(here, ranks));
  const int threads = most_threads(here, here.ranks);
  const auto needed = here.ranks.size() * static_cast<std::size_t>(threads);
  const auto host_cores = static_cast<std::size_t>(here.place(ranks.front()).host_cores);
  if (needed <= host_cores) {
    return text + "; give each rank cores of its own (" + bind_option(threads) + ")";
  }
  return text + "; start fewer ranks on a host" +
         (threads > 1 ? ", or fewer threads (OMP_NUM_THREADS)" : "");
}

/// Bound ranks that want more cores than there are where they must stay.
void find_crowds(const Neighbours& here, std::vector<std::string>& found) {
  std::vector<std::vector<int>> crowded;
  for (const std::vector<int>& area : shared_areas(here)) {
    const auto within = [&](const std::vector<int>& cores) {
      return std::includes(area.begin(), area.end(), cores.begin(), cores.end());
    };
    std::vector<int> ranks;
    for (const int rank : here.ranks) {
      if (here.place(rank).bound && within(here.place(rank).cores)) ranks.push_back(rank);
    }
    const bool told = std::any_of(crowded.begin(), crowded.end(), within);
    if (told || cores_wanted(here, ranks) <= area.size()) continue;
    crowded.push_back(area);
    found.push_back(crowd_text(here, area, ranks));
  }
}

/// A host where the system spreads more threads than there are cores.
void find_full_host(const Neighbours& here, std::vector<std::string>& found) {
  const bool all_bound = std::all_of(here.ranks.begin(), here.ranks.end(),
                                     [&](int rank) { return here.place(rank).bound; });
  const std::size_t cores = place_of({here.host, here.ranks}, here.places).cores.size();
  const std::size_t threads = cores_wanted(here, here.ranks);
  if (all_bound || threads <= cores) return;
  const std::size_t ranks = here.ranks.size();
  const std::string who = ranks == 1
                              ? fmt::format("rank {} on {} runs", here.ranks.front(), here.host)
                              : fmt::format("{} on {} run", counted(ranks, "rank"), here.host);
  const std::string remedy =
      ranks <= cores ? fmt::format("set OMP_NUM_THREADS={}", cores / ranks)
                     : fmt::format("start at most {} on a host", counted(cores, "rank"));
  found.push_back(fmt::format("{} {} on {}, where they take turns; {}", who,
                              counted(threads, "thread"), counted(cores, "core"), remedy));
}

/// One sentence for all that was found of a kind.
void tell(const std::vector<std::string>& found, std::vector<std::string>& warnings) {
  if (found.empty()) return;
  const std::string count =
      found.size() > 1 ? fmt::format(" (the first of {} such cases)", found.size()) : "";
  warnings.push_back(found.front() + count);
}

}  // namespace

std::vector<std::string> hardware_map(const std::vector<RankPlace>& places) {
  if (places.empty()) return {};
  const std::vector<Host> hosts = hosts_of(places);
  std::vector<std::string> lines{fmt::format("hardware: {} on {}", counted(places.size(), "rank"),
                                             counted(hosts.size(), "host"))};
  const bool few = places.size() <= kRanksInTable;
  const auto table = aligned(few ? rank_rows(places) : host_rows(hosts, places));
  lines.insert(lines.end(), table.begin(), table.end());
  return lines;
}

std::vector<std::string> hardware_warnings(const std::vector<RankPlace>& places) {
  std::vector<std::string> crowds, narrow_ranks, full_hosts;
  for (const Host& host : hosts_of(places)) {
    Neighbours here{places, host.name, {}};
    std::copy_if(host.ranks.begin(), host.ranks.end(), std::back_inserter(here.ranks),
                 [&](int rank) { return !here.place(rank).cores.empty(); });
    if (here.ranks.empty()) continue;
    find_crowds(here, crowds);
    find_narrow_ranks(here, narrow_ranks);
    find_full_host(here, full_hosts);
  }
  std::vector<std::string> warnings;
  tell(crowds, warnings);
  tell(narrow_ranks, warnings);
  tell(full_hosts, warnings);
  return warnings;
}

}  // namespace konclave
