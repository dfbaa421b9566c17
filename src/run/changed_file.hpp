#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

namespace konclave {

/// Has `work`, on the I/O thread, change a copy of an HDF5 file, or make a new one, and puts that
/// in the file's place: a process that is killed leaves the file whole. Only one too large to be
/// copied each time is changed in place. `added` bytes at most come to it. Throws Error(io), and
/// what `work` throws; a copy is then gone.
void change_whole(const std::filesystem::path& path, std::int64_t added,
                  const std::function<void(const std::filesystem::path&)>& work);

}  // namespace konclave
