#include "run/rank_place.hpp"

#include "ops/rows.hpp"
#include "run/run_lock.hpp"
#include "tensor/kokkos.hpp"

#include <hwloc.h>

#include <memory>
#include <sched.h>
#include <unistd.h>

namespace konclave {

namespace {

struct FreeTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
struct FreeBitmap {
  void operator()(hwloc_bitmap_t bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Topology = std::unique_ptr<hwloc_topology, FreeTopology>;
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

/// Null when hwloc cannot look at this machine.
Topology load_topology() {
  hwloc_topology_t handle = nullptr;
  if (hwloc_topology_init(&handle) != 0) return nullptr;
  Topology topology(handle);
  // Ranks in control groups of their own see different parts of a host; all must number its cores
  // alike.
  hwloc_topology_set_flags(handle, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  if (hwloc_topology_load(handle) != 0) return nullptr;
  return topology;
}

/// The objects of `type` that share a processor with `processors`.
std::vector<hwloc_obj_t> touched(hwloc_topology_t topology, hwloc_obj_type_t type,
                                 hwloc_const_bitmap_t processors) {
  std::vector<hwloc_obj_t> found;
  hwloc_obj_t object = nullptr;
  while ((object = hwloc_get_next_obj_by_type(topology, type, object)) != nullptr) {
    if (hwloc_bitmap_intersects(object->cpuset, processors) != 0) found.push_back(object);
  }
  return found;
}

/// Fills in cores, NUMA nodes and binding; false when hwloc does not know.
bool ask_hwloc(RankPlace& place) {
  const Topology topology = load_topology();
  const Bitmap processors(hwloc_bitmap_alloc());
  const Bitmap allowed(hwloc_bitmap_alloc());
  if (!topology || !processors || !allowed) return false;
  // Of all threads: OpenMP may have bound the one that calls to the first of many cores.
  if (hwloc_get_cpubind(topology.get(), processors.get(), HWLOC_CPUBIND_PROCESS) != 0) return false;
  hwloc_bitmap_and(allowed.get(), hwloc_topology_get_allowed_cpuset(topology.get()),
                   hwloc_topology_get_topology_cpuset(topology.get()));
  hwloc_bitmap_and(processors.get(), processors.get(), allowed.get());

  // Containers may show processors and no cores.
  const bool has_cores = hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE) > 0;
  const hwloc_obj_type_t unit = has_cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  // hwloc's own numbers: the kernel's start anew in each socket.
  for (const hwloc_obj_t core : touched(topology.get(), unit, processors.get())) {
    place.cores.push_back(static_cast<int>(core->logical_index));
  }
  for (const hwloc_obj_t node : touched(topology.get(), HWLOC_OBJ_NUMANODE, processors.get())) {
    place.numa.push_back(static_cast<int>(node->os_index));
  }
  place.host_cores = hwloc_get_nbobjs_by_type(topology.get(), unit);
  place.bound = hwloc_bitmap_isequal(processors.get(), allowed.get()) == 0;
  return !place.cores.empty();
}

/// The same from the kernel's list of processors; leaves `place` as it is when there is none.
void ask_scheduler(RankPlace& place) {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  if (::sched_getaffinity(0, sizeof processors, &processors) != 0) return;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &processors)) place.cores.push_back(i);
  }
  place.host_cores = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  place.bound = static_cast<int>(place.cores.size()) < place.host_cores;
}

}  // namespace

RankPlace this_place() {
  RankPlace place;
  place.host = host_name();
  place.pid = ::getpid();
  place.threads = Kokkos::DefaultHostExecutionSpace().concurrency();
  if (!ops::kHostExecution) place.device = ExecSpace::name();
  if (!ask_hwloc(place)) ask_scheduler(place);
  return place;
}

std::vector<RankPlace> gather_places(const Communicator& world) {
  std::vector<RankPlace> places;
  for (const std::string& text : world.gather(nlohmann::json(this_place()).dump(), /*root=*/0)) {
    places.push_back(nlohmann::json::parse(text).get<RankPlace>());
  }
  return places;
}

}  // namespace konclave
