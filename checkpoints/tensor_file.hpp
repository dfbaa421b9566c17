#pragma once

#include "base/file.hpp"
#include "checkpoints/format.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace konclave {

/// tensors.h5 while it is written. HDF5 makes the datasets and is closed again before the first
/// byte of data: from then on all is plain output at known places, where each error is seen. The
/// space for it is reserved first, so that a full disk is found at once.
class TensorFileWriter {
 public:
  TensorFileWriter(const std::filesystem::path& path, const std::vector<TensorInfo>& tensors);

  /// The data of the next tensor, in the order of `tensors`, and its checksums.
  void write(const void* host);
  /// Returns when all of it is on the disk.
  void close();

 private:
  /// Where a tensor goes.
  struct Place {
    std::int64_t bytes, data, checksums;
  };

  static std::vector<Place> create_datasets(const std::filesystem::path& path,
                                            const std::vector<TensorInfo>& tensors);

  std::vector<Place> places_;
  std::size_t next_ = 0;
  File file_;
};

/// Finds the tensors in the file and checks that they are what is expected. Datasets are
/// contiguous, so that from then on they are read straight from the file, at any place and without
/// HDF5. Throws Error(input) naming the file and the tensor.
std::vector<StoredTensor> locate_tensors(const std::filesystem::path& path,
                                         const std::vector<TensorInfo>& expected);

}  // namespace konclave
