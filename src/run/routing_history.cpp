#include "run/routing_history.hpp"

#include "base/error.hpp"
#include "checkpoints/io_thread.hpp"
#include "run/routing_columns.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

namespace konclave {

namespace routing {

Extents extents_of(const RoutingHistory& history, std::int64_t steps) {
  return {static_cast<hsize_t>(steps), static_cast<hsize_t>(history.layers()),
          static_cast<hsize_t>(history.experts)};
}

std::size_t elements(const Extents& extents, int rank) {
  std::size_t product = 1;
  for (int axis = 0; axis < rank; ++axis) product *= extents[static_cast<std::size_t>(axis)];
  return product;
}

Hdf5Handle open_file(const Hdf5Calls& calls, const std::filesystem::path& path, unsigned how) {
  const Hdf5Handle access = file_access(calls);
  return calls.own(H5Fopen(path.c_str(), how, access), H5Fclose, "find HDF5 metadata");
}

Hdf5Handle open_dataset(const Hdf5Calls& calls, hid_t file, const std::string& name) {
  return calls.own(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, "find dataset " + name);
}

namespace {

/// Of a dataset that has `rank` extents and elements of type T.
template <typename T>
Extents checked_extents(const Hdf5Calls& calls, hid_t dataset, const std::string& name, int rank) {
  const Hdf5Handle space =
      calls.own(H5Dget_space(dataset), H5Sclose, "read the shape of dataset " + name);
  const Hdf5Handle type =
      calls.own(H5Dget_type(dataset), H5Tclose, "read the type of dataset " + name);
  Extents extents{};
  require(H5Sget_simple_extent_ndims(space) == rank && H5Tequal(type, stored_type<T>()) > 0,
          "dataset " + name + " has another type or rank than that of a routing.h5",
          ExitCode::input);
  H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  return extents;
}

/// The elements of `count` rows from the `first` one on.
template <typename T>
void read_rows(const Hdf5Calls& calls, hid_t dataset, const std::string& name, int rank,
               std::int64_t first, const Extents& count, std::vector<T>& values) {
  values.resize(elements(count, rank));
  if (values.empty()) return;
  const std::string action = "read dataset " + name;
  const Extents start = {static_cast<hsize_t>(first), 0, 0};
  const Hdf5Handle source = calls.own(H5Dget_space(dataset), H5Sclose, action);
  const Hdf5Handle target =
      calls.own(H5Screate_simple(rank, count.data(), nullptr), H5Sclose, action);
  calls.check(
      H5Sselect_hyperslab(source, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) >=
              0 &&
          H5Dread(dataset, memory_type<T>(), target, source, H5P_DEFAULT, values.data()) >= 0,
      action);
}

std::int64_t count_of(double assignments) {
  return std::isfinite(assignments) ? std::llround(assignments) : 0;
}

}  // namespace

RoutingHistory read_steps(const Hdf5Calls& calls, hid_t file) {
  RoutingHistory found;
  const auto read_whole = [&](const char* name, std::vector<std::int64_t>& values) {
    const Hdf5Handle dataset = open_dataset(calls, file, name);
    read_rows(calls, dataset, name, 1, 0, checked_extents<std::int64_t>(calls, dataset, name, 1),
              values);
  };
  read_whole(kLayers, found.layer);
  read_whole(kSteps, found.step);
  hsize_t steps = found.step.size();
  visit_columns(std::as_const(found), [&](const char* name, const auto& values, int rank) {
    const Hdf5Handle dataset = open_dataset(calls, file, name);
    const auto extents = checked_extents<ElementOf<decltype(values)>>(calls, dataset, name, rank);
    steps = std::min(steps, extents[0]);
    require(rank < 2 || extents[1] == found.layer.size(),
            "dataset " + std::string(name) + " has another number of layers than dataset layer",
            ExitCode::input);
    if (rank == 3) found.experts = static_cast<std::int64_t>(extents[2]);
  });
  found.step.resize(steps);
  require(std::is_sorted(found.step.begin(), found.step.end(), std::less_equal<>()),
          "its steps are not in order", ExitCode::input);
  return found;
}

}  // namespace routing

void RoutingHistory::add(std::int64_t number, const std::vector<LayerMetrics>& metrics) {
  require(metrics.size() == layer.size(), "routing of another number of MoE layers");
  step.push_back(number);
  for (const LayerMetrics& one : metrics) {
    for (const double count : one.chosen) chosen.push_back(routing::count_of(count));
    for (const double count : one.kept) kept.push_back(routing::count_of(count));
    entropy.push_back(one.entropy);
    aux_loss.push_back(one.aux_loss);
    seq_aux_loss.push_back(one.seq_aux_loss);
    global_aux_loss.push_back(one.global_aux_loss);
    z_loss.push_back(one.z_loss);
  }
}

void RoutingHistory::clear() {
  routing::visit_columns(*this, [](const char*, auto& values, int) { values.clear(); });
}

std::int64_t RoutingHistory::bytes() const {
  std::size_t sum = 0;
  routing::visit_columns(*this, [&](const char*, const auto& values, int) {
    sum += values.size() * sizeof(routing::ElementOf<decltype(values)>);
  });
  return static_cast<std::int64_t>(sum);
}

RoutingHistory read_routing_steps(const std::filesystem::path& path) {
  return io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::input);
    const Hdf5Handle file = routing::open_file(calls, path, H5F_ACC_RDONLY);
    return routing::read_steps(calls, file);
  });
}

RoutingHistory read_routing(const std::filesystem::path& path, std::int64_t first,
                            std::int64_t count) {
  return io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::input);
    const Hdf5Handle file = routing::open_file(calls, path, H5F_ACC_RDONLY);
    RoutingHistory history = routing::read_steps(calls, file);
    require(first >= 0 && count >= 0 && first + count <= history.steps(),
            path.string() + " has not as many steps", ExitCode::input);
    const routing::Extents rows = routing::extents_of(history, count);
    routing::visit_columns(history, [&](const char* name, auto& values, int rank) {
      const Hdf5Handle dataset = routing::open_dataset(calls, file, name);
      routing::read_rows(calls, dataset, name, rank, first, rows, values);
    });
    return history;
  });
}

}  // namespace konclave
