#pragma once

#include "checkpoints/hdf5_handles.hpp"
#include "run/routing_history.hpp"

#include <array>
#include <cstddef>
#include <filesystem>
#include <string>
#include <type_traits>

namespace konclave::routing {

/// What reader and writer of routing.h5 share. All of it runs on the I/O thread.

inline constexpr const char* kLayers = "layer";
inline constexpr const char* kSteps = "step";

template <typename T> hid_t memory_type() {
  return std::is_same_v<T, double> ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
}

template <typename T> hid_t stored_type() {
  return std::is_same_v<T, double> ? H5T_IEEE_F64LE : H5T_STD_I64LE;
}

/// Type of the elements of a column that visit_columns shows.
template <typename Values> using ElementOf = typename std::decay_t<Values>::value_type;

/// Visits what grows with the steps: (name, values, rank). The numbers of the steps come last, so
/// that whoever finds a step's number finds the rest of it.
template <typename History, typename Visit> void visit_columns(History& history, Visit&& visit) {
  visit("chosen", history.chosen, 3);
  visit("kept", history.kept, 3);
  visit("entropy", history.entropy, 2);
  visit("aux_loss", history.aux_loss, 2);
  visit("seq_aux_loss", history.seq_aux_loss, 2);
  visit("global_aux_loss", history.global_aux_loss, 2);
  visit("z_loss", history.z_loss, 2);
  visit(kSteps, history.step, 1);
}

/// (S, L, E); a dataset has as many of them as its rank says.
using Extents = std::array<hsize_t, 3>;

Extents extents_of(const RoutingHistory& history, std::int64_t steps);
/// The product of the first `rank` of them.
std::size_t elements(const Extents& extents, int rank);

Hdf5Handle open_file(const Hdf5Calls& calls, const std::filesystem::path& path, unsigned how);
Hdf5Handle open_dataset(const Hdf5Calls& calls, hid_t file, const std::string& name);

/// See read_routing_steps. Throws with the code of `calls`, and Error(input) where the file is not
/// as a routing.h5 is.
RoutingHistory read_steps(const Hdf5Calls& calls, hid_t file);

}  // namespace konclave::routing
