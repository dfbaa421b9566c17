#include "run/changed_file.hpp"

#include "checkpoints/hdf5_handles.hpp"
#include "checkpoints/io_thread.hpp"

#include <system_error>

namespace konclave {

namespace {

/// A file of this size or less is replaced as a whole.
constexpr std::int64_t kMostCopied = std::int64_t{32} << 20;

}  // namespace

void change_whole(const std::filesystem::path& path, std::int64_t added,
                  const std::function<void(const std::filesystem::path&)>& work) {
  const std::filesystem::path fresh = path.string() + ".new";
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  const auto size = exists ? static_cast<std::int64_t>(std::filesystem::file_size(path, error)) : 0;
  const bool in_place = size > kMostCopied;
  const std::int64_t room = added + (in_place ? 0 : size);
  prove_room(path, room, room);
  if (in_place) {
    io_thread().run([&] { work(path); });
    return;
  }
  try {
    std::filesystem::remove(fresh, error);  // of a process that was killed here
    if (exists) std::filesystem::copy_file(path, fresh, error);
    require(!error, "cannot copy " + path.string() + ": " + error.message(), ExitCode::io);
    io_thread().run([&] { work(fresh); });
    std::filesystem::rename(fresh, path, error);
    require(!error, "cannot replace " + path.string() + ": " + error.message(), ExitCode::io);
  } catch (const Error&) {
    std::filesystem::remove(fresh, error);
    throw;
  }
}

}  // namespace konclave
