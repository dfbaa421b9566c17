#include "checkpoints/tensor_file.hpp"

#include "checkpoints/checksum.hpp"
#include "checkpoints/hdf5_handles.hpp"
#include "checkpoints/io_thread.hpp"

#include <bit>
#include <utility>

namespace konclave {

static_assert(std::endian::native == std::endian::little,
              "tensors are stored and summed in little endian: swap bytes here on another machine");

namespace {

constexpr std::int64_t kMetadataRoom = std::int64_t{1} << 20;
constexpr std::int64_t kMetadataPerTensor = std::int64_t{1} << 12;
constexpr const char* kChecksumGroup = "checksums/";
constexpr const char* kTypeAttribute = "dtype";
constexpr const char* kChecksumType = "uint64";

hid_t file_type(DType type) {
  switch (type) {
    case DType::bf16:
      return H5T_STD_U16LE;  // HDF5 has no bfloat16; the attribute says what it is
    case DType::fp32:
      return H5T_IEEE_F32LE;
    case DType::fp64:
      return H5T_IEEE_F64LE;
  }
  fail("unknown element type");
}

/// Properties of a new object that keeps no times: equal tensors make equal files.
Hdf5Handle without_times(const Hdf5Calls& calls, hid_t property_class) {
  Hdf5Handle creation = calls.own(H5Pcreate(property_class), H5Pclose, "set up an object");
  calls.check(H5Pset_obj_track_times(creation, false) >= 0, "set up an object");
  return creation;
}

Hdf5Handle create_file(const Hdf5Calls& calls, const std::filesystem::path& path) {
  const Hdf5Handle access = file_access(calls);
  const Hdf5Handle creation = without_times(calls, H5P_FILE_CREATE);
  return calls.own(H5Fcreate(path.c_str(), H5F_ACC_EXCL, creation, access), H5Fclose,
                   "create a file");
}

/// Makes the groups above a dataset, those that are missing.
void create_groups(const Hdf5Calls& calls, hid_t file, const std::string& dataset) {
  const std::string action = "create the groups of " + dataset;
  const Hdf5Handle creation = without_times(calls, H5P_GROUP_CREATE);
  for (std::size_t end = dataset.find('/'); end != dataset.npos; end = dataset.find('/', end + 1)) {
    const std::string group = dataset.substr(0, end);
    const htri_t there = H5Lexists(file, group.c_str(), H5P_DEFAULT);
    calls.check(there >= 0, action);
    if (there > 0) continue;
    const Hdf5Handle made = calls.own(
        H5Gcreate2(file, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), H5Gclose, action);
  }
}

Hdf5Handle open_dataset(const Hdf5Calls& calls, hid_t file, const std::string& name) {
  return calls.own(H5Dopen2(file, name.c_str(), H5P_DEFAULT), H5Dclose, "open dataset " + name);
}

/// Contiguous, with all of its space from the start and never filled: the size of the file is known
/// before there is data in it.
Hdf5Handle dataset_properties(const Hdf5Calls& calls) {
  Hdf5Handle creation = without_times(calls, H5P_DATASET_CREATE);
  calls.check(H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0 &&
                  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY) >= 0 &&
                  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0,
              "set up a dataset");
  return creation;
}

void write_type_attribute(const Hdf5Calls& calls, hid_t dataset, const std::string& value) {
  const std::string action = "write attribute " + std::string(kTypeAttribute);
  const Hdf5Handle type = calls.own(H5Tcopy(H5T_C_S1), H5Tclose, action);
  calls.check(H5Tset_size(type, value.size()) >= 0, action);
  const Hdf5Handle space = calls.own(H5Screate(H5S_SCALAR), H5Sclose, action);
  const Hdf5Handle attribute = calls.own(
      H5Acreate2(dataset, kTypeAttribute, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose, action);
  calls.check(H5Awrite(attribute, type, value.data()) >= 0, action);
}

std::vector<std::int64_t> shape_of(const Hdf5Calls& calls, hid_t dataset, const std::string& name) {
  const std::string action = "read the shape of " + name;
  const Hdf5Handle space = calls.own(H5Dget_space(dataset), H5Sclose, action);
  const int rank = H5Sget_simple_extent_ndims(space);
  calls.check(rank >= 0, action);
  std::vector<hsize_t> extents(static_cast<std::size_t>(rank));
  calls.check(H5Sget_simple_extent_dims(space, extents.data(), nullptr) >= 0, action);
  return {extents.begin(), extents.end()};
}

/// Where the data of a contiguous dataset begins in the file.
std::int64_t offset_of(const Hdf5Calls& calls, hid_t dataset, const std::string& name) {
  const haddr_t offset = H5Dget_offset(dataset);
  calls.check(offset != HADDR_UNDEF, "find the data of " + name);
  return static_cast<std::int64_t>(offset);
}

/// Gives back where its data goes.
std::int64_t create_dataset(const Hdf5Calls& calls, hid_t file, const std::string& name, hid_t type,
                            const std::vector<std::int64_t>& shape, const std::string& type_name) {
  const std::string action = "create dataset " + name;
  const std::vector<hsize_t> extents(shape.begin(), shape.end());
  const Hdf5Handle space =
      calls.own(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                H5Sclose, action);
  create_groups(calls, file, name);
  const Hdf5Handle creation = dataset_properties(calls);
  const Hdf5Handle dataset =
      calls.own(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                H5Dclose, action);
  write_type_attribute(calls, dataset, type_name);
  return offset_of(calls, dataset, name);
}

/// Room for the metadata alone; the data takes its own (TensorFileWriter).
void prove_room_for(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors) {
  std::int64_t metadata = kMetadataRoom, data = 0;
  for (const TensorInfo& tensor : tensors) {
    metadata += kMetadataPerTensor;
    data += tensor.bytes();
  }
  prove_room(path, metadata, metadata + data);
}

void require_as_expected(const Hdf5Calls& calls, hid_t dataset, hid_t type,
                         const TensorInfo& expected, const std::filesystem::path& path) {
  const Hdf5Handle stored =
      calls.own(H5Dget_type(dataset), H5Tclose, "read the type of " + expected.name);
  require(H5Tequal(stored, type) > 0 && shape_of(calls, dataset, expected.name) == expected.shape,
          path.string() + ": dataset " + expected.name + " is not " +
              std::string(stored_name(expected.type)) + " " + expected.shape_text() +
              ", as the manifest has it",
          ExitCode::input);
}

std::vector<std::uint64_t> read_checksums(const Hdf5Calls& calls, hid_t file,
                                          const TensorInfo& tensor,
                                          const std::filesystem::path& path) {
  const std::string name = kChecksumGroup + tensor.name;
  const Hdf5Handle dataset = open_dataset(calls, file, name);
  const std::int64_t blocks = block_count(tensor.bytes());
  require(shape_of(calls, dataset, name) == std::vector<std::int64_t>{blocks},
          path.string() + ": dataset " + name + " does not have " + std::to_string(blocks) +
              " elements",
          ExitCode::input);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(blocks));
  calls.check(H5Dread(dataset, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, sums.data()) >= 0,
              "read dataset " + name);
  return sums;
}

}  // namespace

TensorFileWriter::TensorFileWriter(const std::filesystem::path& path,
                                   const std::vector<TensorInfo>& tensors)
    : places_(create_datasets(path, tensors)), file_(File::open_for_writing(path)) {
  file_.reserve(file_.size());
}

std::vector<TensorFileWriter::Place> TensorFileWriter::create_datasets(
    const std::filesystem::path& path, const std::vector<TensorInfo>& tensors) {
  prove_room_for(path, tensors);
  return io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::io);
    Hdf5Handle file = create_file(calls, path);
    std::vector<Place> places;
    for (const TensorInfo& tensor : tensors) {
      require(tensor.elements() > 0, tensor.name + " has no elements");
      const std::int64_t data = create_dataset(calls, file, tensor.name, file_type(tensor.type),
                                               tensor.shape, std::string(stored_name(tensor.type)));
      const std::int64_t checksums =
          create_dataset(calls, file, kChecksumGroup + tensor.name, H5T_STD_U64LE,
                         {block_count(tensor.bytes())}, kChecksumType);
      places.push_back({tensor.bytes(), data, checksums});
    }
    calls.check(file.close() >= 0, "write the metadata");
    return places;
  });
}

void TensorFileWriter::write(const void* host) {
  require(next_ < places_.size(), "more tensors written than announced");
  const Place& place = places_[next_++];
  const std::vector<std::uint64_t> sums = block_checksums(host, place.bytes);
  file_.write(place.data, host, static_cast<std::size_t>(place.bytes));
  file_.write(place.checksums, sums.data(), sums.size() * sizeof sums[0]);
}

void TensorFileWriter::close() {
  require(next_ == places_.size(), "fewer tensors written than announced");
  file_.sync();
  file_.close();
}

std::vector<StoredTensor> locate_tensors(const std::filesystem::path& path,
                                         const std::vector<TensorInfo>& expected) {
  return io_thread().run([&] {
    const Hdf5Calls calls(path, ExitCode::input);
    const Hdf5Handle access = file_access(calls);
    const Hdf5Handle file =
        calls.own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), H5Fclose, "find HDF5 metadata");
    std::vector<StoredTensor> found;
    for (const TensorInfo& tensor : expected) {
      const Hdf5Handle dataset = open_dataset(calls, file, tensor.name);
      require_as_expected(calls, dataset, file_type(tensor.type), tensor, path);
      found.push_back({tensor, offset_of(calls, dataset, tensor.name),
                       read_checksums(calls, file, tensor, path)});
    }
    return found;
  });
}

}  // namespace konclave
