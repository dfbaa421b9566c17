#include "checkpoints/hdf5_handles.hpp"

#include "base/file.hpp"
#include "checkpoints/io_thread.hpp"

#include <system_error>
#include <utility>

namespace konclave {

namespace {

/// Keeps the first entry that it is shown and ends the walk.
herr_t keep_entry(unsigned, const H5E_error2_t* entry, void* text) {
  *static_cast<std::string*>(text) = std::string(entry->func_name) + ": " + entry->desc;
  return 1;
}

/// The innermost entry of HDF5's error stack: for a failed system call it holds the errno and its
/// meaning.
std::string hdf5_reason() {
  std::string text = "HDF5 gives no reason";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_entry, &text);
  return text;
}

}  // namespace

Hdf5Handle::Hdf5Handle(Hdf5Handle&& other) noexcept
    : id_(std::exchange(other.id_, H5I_INVALID_HID)), closer_(other.closer_) {}

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(closer_, other.closer_);
  return *this;
}

Hdf5Handle::~Hdf5Handle() { close(); }

herr_t Hdf5Handle::close() {
  const hid_t id = std::exchange(id_, H5I_INVALID_HID);
  return id >= 0 ? closer_(id) : 0;
}

Hdf5Calls::Hdf5Calls(std::filesystem::path path, ExitCode code)
    : path_(std::move(path)), code_(code) {
  require(io_thread().runs_the_caller(), "HDF5 is called outside the I/O thread");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // errors are thrown, not printed
}

void Hdf5Calls::check(bool ok, std::string_view action) const {
  if (ok) return;
  fail("cannot " + std::string(action) + " in " + path_.string() + ": " + hdf5_reason(), code_);
}

Hdf5Handle Hdf5Calls::own(hid_t id, Hdf5Handle::Closer closer, std::string_view action) const {
  check(id >= 0, action);
  return {id, closer};
}

Hdf5Handle file_access(const Hdf5Calls& calls) {
  Hdf5Handle access = calls.own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "set up access");
  calls.check(H5Pset_fapl_sec2(access) >= 0 &&
                  H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
                  H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) >= 0,
              "set up access");
  return access;
}

void prove_room(const std::filesystem::path& path, std::int64_t reserved, std::int64_t size) {
  const std::filesystem::path probe = path.string() + ".probe";
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);  // of a process that was killed here
  File file = File::create(probe);
  try {
    file.resize(size);
    file.reserve(reserved);
    file.close();
  } catch (const Error&) {
    std::filesystem::remove(probe, ignored);
    throw;
  }
  std::filesystem::remove(probe, ignored);
}

}  // namespace konclave
