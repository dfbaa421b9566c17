#include "run/routing_file.hpp"

#include "base/error.hpp"
#include "checkpoints/io_thread.hpp"
#include "run/changed_file.hpp"
#include "run/routing_columns.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

namespace konclave {

namespace {

using namespace routing;

/// A compressed piece of a dataset is about this large, so that a batch seldom ends within one:
/// the place that it had before it grew is lost to the file.
constexpr std::int64_t kChunkBytes = std::int64_t{1} << 16;
constexpr std::int64_t kMostChunkSteps = 1024;
constexpr std::int64_t kMetadataRoom = std::int64_t{1} << 20;

/// In chunks of some steps, shuffled and deflated where HDF5 has these filters.
template <typename T>
void create_column(const Hdf5Calls& calls, hid_t file, const char* name, const Extents& extents,
                   int rank) {
  const std::string action = "create dataset " + std::string(name);
  Extents most = extents, chunk = extents;
  chunk[0] = 1;
  const auto row = static_cast<std::int64_t>(elements(chunk, rank) * sizeof(T));
  most[0] = H5S_UNLIMITED;
  chunk[0] = static_cast<hsize_t>(std::clamp<std::int64_t>(kChunkBytes / row, 1, kMostChunkSteps));
  const Hdf5Handle space =
      calls.own(H5Screate_simple(rank, extents.data(), most.data()), H5Sclose, action);
  const Hdf5Handle creation = calls.own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, action);
  bool ok = H5Pset_obj_track_times(creation, false) >= 0 &&
            H5Pset_chunk(creation, rank, chunk.data()) >= 0;
  if (H5Zfilter_avail(H5Z_FILTER_SHUFFLE) > 0 && H5Zfilter_avail(H5Z_FILTER_DEFLATE) > 0) {
    ok = ok && H5Pset_shuffle(creation) >= 0 && H5Pset_deflate(creation, 1) >= 0;
  }
  calls.check(ok, action);
  calls.own(H5Dcreate2(file, name, stored_type<T>(), space, H5P_DEFAULT, creation, H5P_DEFAULT),
            H5Dclose, action);
}

void write_layers(const Hdf5Calls& calls, hid_t file, const std::vector<std::int64_t>& layers) {
  const char* const action = "write dataset layer";
  const hsize_t count = layers.size();
  const Hdf5Handle space = calls.own(H5Screate_simple(1, &count, nullptr), H5Sclose, action);
  const Hdf5Handle dataset = calls.own(H5Dcreate2(file, kLayers, stored_type<std::int64_t>(), space,
                                                  H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                       H5Dclose, action);
  calls.check(H5Dwrite(dataset, memory_type<std::int64_t>(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                       layers.data()) >= 0,
              action);
}

}  // namespace

RoutingFile::RoutingFile(std::filesystem::path path, std::vector<std::int64_t> layers,
                         std::int64_t experts)
    : path_(std::move(path)) {
  pending_.layer = std::move(layers);
  pending_.experts = experts;
}

std::string RoutingFile::open(std::int64_t step) {
  std::string remark;
  std::error_code error;
  rows_ = 0;
  pending_.clear();
  if (step > 0 && std::filesystem::exists(path_, error)) {
    try {
      change([&](const std::filesystem::path& file) { rows_ = cut(file, step); });
      return "";
    } catch (const Error& caught) {
      if (caught.exit_code() != ExitCode::input) throw;
      const std::filesystem::path aside = path_.string() + ".damaged";
      std::filesystem::rename(path_, aside, error);
      remark = path_.string() + " starts anew, and what was there is " + aside.string() + " (" +
               caught.what() + ")";
    }
  }
  std::filesystem::remove(path_, error);
  change([&](const std::filesystem::path& file) { create(file); });
  return remark;
}

void RoutingFile::change(const std::function<void(const std::filesystem::path&)>& work) const {
  change_whole(path_, kMetadataRoom + pending_.bytes(), work);
}

void RoutingFile::create(const std::filesystem::path& path) const {
  const Hdf5Calls calls(path, ExitCode::io);
  const Hdf5Handle access = file_access(calls);
  Hdf5Handle file = calls.own(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose,
                              "create a file");
  write_layers(calls, file, pending_.layer);
  visit_columns(pending_, [&](const char* name, const auto& values, int rank) {
    create_column<ElementOf<decltype(values)>>(calls, file, name, extents_of(pending_, 0), rank);
  });
  calls.check(file.close() >= 0, "write the metadata");
}

std::int64_t RoutingFile::cut(const std::filesystem::path& path, std::int64_t step) const {
  const Hdf5Calls calls(path, ExitCode::input);
  Hdf5Handle file = open_file(calls, path, H5F_ACC_RDWR);
  const RoutingHistory found = read_steps(calls, file);
  require(found.layer == pending_.layer && found.experts == pending_.experts,
          "its MoE layers or experts are not those of this model", ExitCode::input);
  const auto end = std::upper_bound(found.step.begin(), found.step.end(), step);
  const std::int64_t rows = end - found.step.begin();
  visit_columns(pending_, [&](const char* name, const auto&, int) {
    const Hdf5Handle dataset = open_dataset(calls, file, name);
    calls.check(H5Dset_extent(dataset, extents_of(pending_, rows).data()) >= 0,
                "shorten dataset " + std::string(name));
  });
  calls.check(file.close() >= 0, "write the metadata");
  return rows;
}

void RoutingFile::append(const std::filesystem::path& path) const {
  const Hdf5Calls calls(path, ExitCode::io);
  Hdf5Handle file = open_file(calls, path, H5F_ACC_RDWR);
  const Extents whole = extents_of(pending_, rows_ + pending_.steps());
  const Extents added = extents_of(pending_, pending_.steps());
  const Extents first = {static_cast<hsize_t>(rows_), 0, 0};
  visit_columns(pending_, [&](const char* name, const auto& values, int rank) {
    const std::string action = "write dataset " + std::string(name);
    const Hdf5Handle dataset = open_dataset(calls, file, name);
    calls.check(H5Dset_extent(dataset, whole.data()) >= 0, action);
    const Hdf5Handle target = calls.own(H5Dget_space(dataset), H5Sclose, action);
    const Hdf5Handle source =
        calls.own(H5Screate_simple(rank, added.data(), nullptr), H5Sclose, action);
    const bool ok = H5Sselect_hyperslab(target, H5S_SELECT_SET, first.data(), nullptr, added.data(),
                                        nullptr) >= 0 &&
                    H5Dwrite(dataset, memory_type<ElementOf<decltype(values)>>(), source, target,
                             H5P_DEFAULT, values.data()) >= 0;
    calls.check(ok, action);
  });
  calls.check(file.close() >= 0, "write the metadata");
}

void RoutingFile::flush() {
  if (pending_.steps() == 0) return;
  change([&](const std::filesystem::path& file) { append(file); });
  rows_ += pending_.steps();
  pending_.clear();
}

}  // namespace konclave
