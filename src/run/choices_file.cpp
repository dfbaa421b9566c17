#include "run/choices_file.hpp"

#include "checkpoints/io_thread.hpp"
#include "run/changed_file.hpp"
#include "run/routing_columns.hpp"

#include <fmt/format.h>

#include <array>
#include <system_error>
#include <utility>

namespace konclave {

namespace {

using routing::open_dataset;
using routing::open_file;
using Sizes = std::array<hsize_t, 4>;

constexpr const char* kExperts = "experts";
constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMetadataRoom = std::int64_t{1} << 20;

Sizes sizes_of(const ChoicesShape& shape, std::int64_t samples) {
  return {static_cast<hsize_t>(samples), static_cast<hsize_t>(shape.sequence_length),
          static_cast<hsize_t>(shape.layers), static_cast<hsize_t>(shape.top_k)};
}

/// Visits what a file says of itself: (name of the attribute, value).
template <typename Visit> void visit_attributes(const ChoicesShape& shape, Visit&& visit) {
  visit("format_version", kVersion);
  visit("num_experts", shape.experts);
  visit("top_k", shape.top_k);
  visit("sequence_length", shape.sequence_length);
}

void write_attributes(const Hdf5Calls& calls, hid_t dataset, const ChoicesShape& shape) {
  visit_attributes(shape, [&](const char* name, std::int64_t value) {
    const std::string action = "write attribute " + std::string(name);
    const Hdf5Handle space = calls.own(H5Screate(H5S_SCALAR), H5Sclose, action);
    const Hdf5Handle attribute =
        calls.own(H5Acreate2(dataset, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT),
                  H5Aclose, action);
    calls.check(H5Awrite(attribute, H5T_NATIVE_INT64, &value) >= 0, action);
  });
}

void create(const std::filesystem::path& path, const ChoicesShape& shape) {
  const Hdf5Calls calls(path, ExitCode::io);
  const std::string action = "create dataset " + std::string(kExperts);
  const Hdf5Handle access = file_access(calls);
  Hdf5Handle file = calls.own(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access), H5Fclose,
                              "create a file");
  const Sizes none = sizes_of(shape, 0), chunk = sizes_of(shape, 1);
  Sizes most = none;
  most[0] = H5S_UNLIMITED;
  const Hdf5Handle space =
      calls.own(H5Screate_simple(4, none.data(), most.data()), H5Sclose, action);
  const Hdf5Handle creation = calls.own(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, action);
  calls.check(
      H5Pset_obj_track_times(creation, false) >= 0 && H5Pset_chunk(creation, 4, chunk.data()) >= 0,
      action);
  {
    const Hdf5Handle dataset = calls.own(
        H5Dcreate2(file, kExperts, H5T_STD_U16LE, space, H5P_DEFAULT, creation, H5P_DEFAULT),
        H5Dclose, action);
    write_attributes(calls, dataset, shape);
  }
  calls.check(file.close() >= 0, "write the metadata");
}

/// Samples of a file of this model, which it is or the Error says why not.
std::int64_t checked_samples(const Hdf5Calls& calls, hid_t dataset, const ChoicesShape& shape,
                             const std::filesystem::path& path) {
  const std::string action = "read the shape of dataset " + std::string(kExperts);
  const Hdf5Handle space = calls.own(H5Dget_space(dataset), H5Sclose, action);
  Sizes sizes{};
  require(H5Sget_simple_extent_ndims(space) == 4,
          path.string() + ": dataset " + kExperts + " has no 4 axes", ExitCode::input);
  H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
  visit_attributes(shape, [&](const char* name, std::int64_t wanted) {
    const std::string reading = "find attribute " + std::string(name);
    const Hdf5Handle attribute = calls.own(H5Aopen(dataset, name, H5P_DEFAULT), H5Aclose, reading);
    std::int64_t value = 0;
    calls.check(H5Aread(attribute, H5T_NATIVE_INT64, &value) >= 0, reading);
    require(value == wanted,
            fmt::format("{} was recorded with {} = {}, and this run has {}", path.string(), name,
                        value, wanted),
            ExitCode::deck);
  });
  require(sizes[2] == static_cast<hsize_t>(shape.layers),
          fmt::format("{} was recorded with {} MoE layers, and this run has {}", path.string(),
                      sizes[2], shape.layers),
          ExitCode::deck);
  require(sizes == sizes_of(shape, static_cast<std::int64_t>(sizes[0])),
          path.string() + ": the axes of dataset " + kExperts + " are not what its attributes say",
          ExitCode::input);
  return static_cast<std::int64_t>(sizes[0]);
}

/// `transfer(memory space, file space)` for samples from the `first` on.
template <typename Transfer>
void transfer_samples(const Hdf5Calls& calls, hid_t dataset, const ChoicesShape& shape,
                      std::int64_t first, std::int64_t count, const std::string& action,
                      const Transfer& transfer) {
  const Sizes start = {static_cast<hsize_t>(first), 0, 0, 0}, sizes = sizes_of(shape, count);
  const Hdf5Handle in_file = calls.own(H5Dget_space(dataset), H5Sclose, action);
  const Hdf5Handle in_memory =
      calls.own(H5Screate_simple(4, sizes.data(), nullptr), H5Sclose, action);
  calls.check(H5Sselect_hyperslab(in_file, H5S_SELECT_SET, start.data(), nullptr, sizes.data(),
                                  nullptr) >= 0 &&
                  transfer(in_memory, in_file) >= 0,
              action);
}

/// Cuts the file behind so many samples; `write` then gets the dataset.
template <typename Write>
void resize(const std::filesystem::path& path, std::int64_t samples, const ChoicesShape& shape,
            const Write& write) {
  const Hdf5Calls calls(path, ExitCode::io);
  Hdf5Handle file = open_file(calls, path, H5F_ACC_RDWR);
  {
    const Hdf5Handle dataset = open_dataset(calls, file, kExperts);
    calls.check(H5Dset_extent(dataset, sizes_of(shape, samples).data()) >= 0,
                "resize dataset " + std::string(kExperts));
    write(calls, dataset);
  }
  calls.check(file.close() >= 0, "write the metadata");
}

/// Whether a token's K experts are different ones of the model's.
bool are_experts(const std::uint16_t* experts, const ChoicesShape& shape) {
  for (std::int64_t k = 0; k < shape.top_k; ++k) {
    if (experts[k] >= shape.experts) return false;
    for (std::int64_t before = 0; before < k; ++before) {
      if (experts[before] == experts[k]) return false;
    }
  }
  return true;
}

}  // namespace

ChoicesFile::ChoicesFile(std::filesystem::path path, const ChoicesShape& shape)
    : path_(std::move(path)), shape_(shape) {}

void ChoicesFile::open(std::int64_t samples) {
  pending_.clear();
  samples_ = samples;
  if (samples == 0) {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
    change_whole(path_, kMetadataRoom,
                 [&](const std::filesystem::path& file) { create(file, shape_); });
    return;
  }
  const std::int64_t found = count_samples(path_, shape_);
  require(found >= samples,
          fmt::format("{} has the routing of {} sequences, and this run goes on behind {}: what is "
                      "between was not recorded; start the run anew, or leave out moe.replay",
                      path_.string(), found, samples),
          ExitCode::input);
  if (found == samples) return;
  change_whole(path_, kMetadataRoom, [&](const std::filesystem::path& file) {
    resize(file, samples, shape_, [](const Hdf5Calls&, hid_t) {});
  });
}

void ChoicesFile::add(const std::vector<std::uint16_t>& choices) {
  require(static_cast<std::int64_t>(choices.size()) % shape_.per_sample() == 0,
          "choices of whole samples");
  pending_.insert(pending_.end(), choices.begin(), choices.end());
}

std::int64_t ChoicesFile::pending_bytes() const {
  return static_cast<std::int64_t>(pending_.size() * sizeof(std::uint16_t));
}

void ChoicesFile::flush() {
  const std::int64_t count = static_cast<std::int64_t>(pending_.size()) / shape_.per_sample();
  if (count == 0) return;
  change_whole(path_, kMetadataRoom + pending_bytes(), [&](const std::filesystem::path& path) {
    resize(path, samples_ + count, shape_, [&](const Hdf5Calls& calls, hid_t dataset) {
      transfer_samples(calls, dataset, shape_, samples_, count,
                       "write dataset " + std::string(kExperts), [&](hid_t memory, hid_t file) {
                         return H5Dwrite(dataset, H5T_NATIVE_UINT16, memory, file, H5P_DEFAULT,
                                         pending_.data());
                       });
    });
  });
  samples_ += count;
  pending_.clear();
}

std::int64_t count_samples(const std::filesystem::path& path, const ChoicesShape& shape) {
  std::error_code error;
  require(std::filesystem::exists(path, error), path.string() + ": No such file", ExitCode::input);
  return io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::input);
    const Hdf5Handle file = open_file(calls, path, H5F_ACC_RDONLY);
    const Hdf5Handle dataset = open_dataset(calls, file, kExperts);
    return checked_samples(calls, dataset, shape, path);
  });
}

std::vector<std::uint16_t> read_choices(const std::filesystem::path& path,
                                        const ChoicesShape& shape, std::int64_t first,
                                        std::int64_t count) {
  std::vector<std::uint16_t> choices(static_cast<std::size_t>(count * shape.per_sample()));
  io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::input);
    const Hdf5Handle file = open_file(calls, path, H5F_ACC_RDONLY);
    const Hdf5Handle dataset = open_dataset(calls, file, kExperts);
    transfer_samples(calls, dataset, shape, first, count, "read dataset " + std::string(kExperts),
                     [&](hid_t memory, hid_t in_file) {
                       return H5Dread(dataset, H5T_NATIVE_UINT16, memory, in_file, H5P_DEFAULT,
                                      choices.data());
                     });
  });
  for (std::size_t at = 0; at < choices.size(); at += static_cast<std::size_t>(shape.top_k)) {
    require(are_experts(choices.data() + at, shape),
            fmt::format("{}: sequence {} has a token whose experts are not {} different ones of {}",
                        path.string(), first + static_cast<std::int64_t>(at) / shape.per_sample(),
                        shape.top_k, shape.experts),
            ExitCode::input);
  }
  return choices;
}

}  // namespace konclave
