#pragma once

#include "base/error.hpp"

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace konclave {

/// Owns one HDF5 identifier. The destructor ignores errors: what was written is closed by `close`.
class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);

  Hdf5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept;
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  ~Hdf5Handle();

  operator hid_t() const { return id_; }
  /// What the closing function said; negative is a failure.
  herr_t close();

 private:
  hid_t id_;
  Closer closer_;
};

/// Checks the HDF5 calls on one file: a failure is thrown as Error with `code`, the file's path,
/// what was tried and HDF5's own reason. Made on the I/O thread, where handles live as well.
class Hdf5Calls {
 public:
  Hdf5Calls(std::filesystem::path path, ExitCode code);

  void check(bool ok, std::string_view action) const;
  Hdf5Handle own(hid_t id, Hdf5Handle::Closer closer, std::string_view action) const;

 private:
  std::filesystem::path path_;
  ExitCode code_;
};

/// Plain POSIX I/O, and metadata with checksums of its own that every HDF5 from 1.8 on can read.
Hdf5Handle file_access(const Hdf5Calls& calls);

/// HDF5 cannot be left in good order when it fails to write its metadata at closing (1.10 then
/// crashes at the end of the program). So it is not let near a disk that is full already, nor near
/// a limit on the size of files: throws Error(io) unless a new file beside `path` can take
/// `reserved` bytes and be `size` long.
void prove_room(const std::filesystem::path& path, std::int64_t reserved, std::int64_t size);

}  // namespace konclave
