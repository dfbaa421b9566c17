#include "run/provenance.hpp"

#include "base/version.hpp"
#include "checkpoints/io_thread.hpp"
#include "run/run_lock.hpp"
#include "tensor/kokkos.hpp"

#include <hdf5.h>
#include <mpi.h>

#include <chrono>
#include <cstring>
#include <ctime>
#include <unistd.h>

namespace konclave {

namespace {

std::string now_text() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  char text[32];
  std::tm parts{};
  std::strftime(text, sizeof text, "%FT%TZ", ::gmtime_r(&now, &parts));
  return text;
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string whole(text);  // the length may count the 0 behind it
  return whole.substr(0, whole.find('\n'));
}

std::string hdf5_version() {
  unsigned major = 0, minor = 0, release = 0;
  io_thread().run([&] { H5get_libversion(&major, &minor, &release); });
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(release);
}

nlohmann::json environment() {
  nlohmann::json kept = nlohmann::json::object();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    for (const char* prefix :
         {"OMP_", "KOKKOS_", "OMPI_MCA_", "SLURM_JOB", "FLUX_JOB", "PBS_JOB", "DNNL_", "ONEDNN_"}) {
      const char* equals = std::strchr(*entry, '=');
      if (equals != nullptr && std::strncmp(*entry, prefix, std::strlen(prefix)) == 0) {
        kept[std::string(*entry, static_cast<std::size_t>(equals - *entry))] = equals + 1;
      }
    }
  }
  return kept;
}

}  // namespace

nlohmann::json provenance(const std::vector<std::string>& command_line,
                          const std::vector<BackendChoice>& choices,
                          const std::vector<RankPlace>& places) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const RankPlace& place : places) {
    nlohmann::json rank = place;
    rank["rank"] = ranks.size();
    ranks.push_back(rank);
  }
  nlohmann::json backends = nlohmann::json::array();
  for (const BackendChoice& choice : choices) {
    backends.push_back({{"operation", choice.operation},
                        {"problem", choice.problem},
                        {"backend", choice.backend},
                        {"refusals", choice.refusals},
                        {"remark", choice.remark}});
  }
  return {{"version", version()},
          {"revision", source_revision()},
          {"build", build_description()},
          {"kokkos", kokkos_version()},
          {"execution_space", ExecSpace::name()},
          {"mpi", mpi_version()},
          {"hdf5", hdf5_version()},
          {"started", now_text()},
          {"command", command_line},
          {"job", job_id()},
          {"ranks", ranks},
          {"environment", environment()},
          {"backends", backends}};
}

}  // namespace konclave
