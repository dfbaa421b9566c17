#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// An open file; the descriptor is closed when the object goes. Whatever fails throws Error with
/// the path and the system's reason ("No space left on device"): ExitCode::input for a file opened
/// to be read, ExitCode::io for one that is written.
class File {
 public:
  /// A new file to write; one that exists already is an error.
  static File create(const std::filesystem::path& path);
  /// An existing file, to write.
  static File open_for_writing(const std::filesystem::path& path);
  /// An existing file, to read.
  static File open(const std::filesystem::path& path);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::filesystem::path& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  std::int64_t size() const;

  /// All of it, or an error.
  void write(std::int64_t offset, const void* data, std::size_t bytes);
  void read(std::int64_t offset, void* data, std::size_t bytes) const;

  /// Makes sure that the first `bytes` have space on the disk, so that no later write of them
  /// fails for want of it. May make the file longer.
  void reserve(std::int64_t bytes);
  /// Cuts it, or makes it longer without taking space.
  void resize(std::int64_t bytes);
  /// Returns when the contents are on the disk.
  void sync();
  /// Closes now, so that what the system reports at that point is not lost.
  void close();

 private:
  File(std::filesystem::path path, int flags, bool writing);
  /// Reads errno itself: as an argument it might be read before the call that sets it.
  void check(bool ok, std::string_view action) const;

  std::filesystem::path path_;
  int descriptor_ = -1;
  bool writing_ = false;
};

/// The whole of a small file.
std::string read_text(const std::filesystem::path& path);
/// A new file with this text, on the disk when the call returns.
void write_text(const std::filesystem::path& path, std::string_view text);
/// Gives a file this text in one step: whoever reads it sees the old text or the new one.
void replace_text(const std::filesystem::path& path, std::string_view text);

/// Names of what is in a folder, in alphabetical order; none where there is no such folder.
std::vector<std::string> list_folder(const std::filesystem::path& folder);

/// Makes creations, renames and removals in a folder last through a loss of power.
void sync_folder(const std::filesystem::path& folder);

/// "HOST-PID": tells apart what processes leave behind, on a file system that hosts share.
std::string process_label();

/// Throws Error(io) "cannot ACTION PATH: what the system says of `reason`" (an errno value).
[[noreturn]] void fail_io(std::string_view action, const std::filesystem::path& path, int reason);

}  // namespace konclave
