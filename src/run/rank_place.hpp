#pragma once

#include "comm/communicator.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace konclave {

/// Where one rank runs.
struct RankPlace {
  std::string host;
  int pid = 0;
  std::vector<int>
      cores;  ///< those it may run on, ascending, the host's counted from 0; empty: unknown
  std::vector<int> numa;  ///< nodes that these cores belong to, as the kernel numbers them
  int host_cores = 0;     ///< of the whole host, whoever may use them; 0: unknown
  bool bound = false;     ///< to less than what the job may use of the host
  int threads = 1;        ///< of Kokkos on the host
  std::string device;     ///< space that runs the kernels; "" when it is the host's threads
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankPlace, host, pid, cores, numa, host_cores, bound, threads,
                                   device)

/// Asks hwloc, and the scheduler where hwloc finds nothing (each processor then counts as a core).
/// Never throws for what cannot be found out. Needs Kokkos initialised: its threads are looked at.
RankPlace this_place();

/// The places of all ranks, in their order, on rank 0; nothing elsewhere. Collective.
std::vector<RankPlace> gather_places(const Communicator& world);

}  // namespace konclave
